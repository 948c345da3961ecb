"""A repository's files on disk: only those that are needed, checked, and recorded in a manifest.

The files lie in the Hub client's cache (`HF_HOME`), where other programs find them too. Their manifest is written last,
to `<cache>/hub/<checkpoint>.json`; without it nothing is loaded.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.atomic import atomic_file
from shared.checkpoints import kinds
from shared.checkpoints.catalog import Checkpoint, HubSource
from shared.checkpoints.conversion import MANIFEST, converted
from shared.checkpoints.pytorch_bin import to_safetensors
from shared.checkpoints.repository import refuse_remote_code
from shared.checkpoints.weights import sha256_of
from shared.errors import Cancelled, MemoryRefused, SuiteError, WeightsCorrupt, WeightsMissing
from shared.events import Loading, Progress
from shared.fetching.hub_cache import Snapshot, stated, whole_snapshot
from shared.fetching.hub_errors import as_suite_error
from shared.fetching.hub_fetch import Repository, holds
from shared.fetching.hub_link import HubLink
from shared.fetching.single_flight import SingleFlight, one_process_at_a_time
from shared.settings import Settings


@dataclass(frozen=True)
class Manifest:
    """The commit, the folder, and by name the size in bytes and the SHA-256 of each of its files."""

    commit: str
    folder: Path
    files: dict[str, tuple[int, str]]

    @property
    def nbytes(self) -> int:
        return sum(size for size, _ in self.files.values())


class HubFiles:
    """Brings checkpoints from the Hub to this machine. One download however many ask."""

    def __init__(self, settings: Settings, link: HubLink, refuse_too_large: Callable[[Checkpoint], None]) -> None:
        self._settings = settings
        self._link = link
        self._refuse_too_large = refuse_too_large
        """Raises `MemoryRefused` for a checkpoint over the memory budget; asked before anything is fetched."""
        self._flights: SingleFlight[Checkpoint] = SingleFlight()

    # -- what callers ask ----------------------------------------------------------------------

    def is_on_disk(self, checkpoint: Checkpoint) -> bool:
        """Whether `ensure` needs no Hub: it was fetched and recorded, or is complete in the Hub client's cache."""
        return self._valid_manifest(checkpoint) is not None or self._in_cache(checkpoint) is not None

    def folder(self, checkpoint: Checkpoint) -> Path:
        """Where the files lie. Raises `WeightsMissing`."""
        manifest = self._valid_manifest(checkpoint)
        if manifest is None:
            raise WeightsMissing(f"{checkpoint.id} is not on this machine yet")
        return manifest.folder

    def ensure(self, checkpoint: Checkpoint) -> Generator[Loading, None, Checkpoint]:
        """Brings what is missing, yielding progress; returns the checkpoint with the commit that is on disk.

        The download stops once no caller waits for it; the next call resumes it.
        Raises `SuiteError`s that say why it cannot be had.
        """
        manifest = self._valid_manifest(checkpoint)
        if manifest is not None:
            return checkpoint.model_copy(update={"revision": manifest.commit})
        flight = self._flights.run(checkpoint.folder, lambda progress: self._bring(checkpoint, progress))
        try:
            while True:
                try:
                    yield Loading(checkpoint.id, *next(flight))
                except StopIteration as ready:
                    return ready.value
        finally:
            flight.close()

    def verified_folder(self, checkpoint: Checkpoint, progress: Progress) -> Path:
        """The folder to load from, after every file in it was read and found as it was recorded.

        Raises `WeightsMissing` or `WeightsCorrupt`.
        """
        manifest = self._valid_manifest(checkpoint)
        if manifest is None:
            raise WeightsMissing(f"{checkpoint.id} is not on this machine yet")
        done = 0
        for name, (size, expected) in manifest.files.items():
            progress(f"checking {checkpoint.id}", done, manifest.nbytes)
            try:
                found = sha256_of(manifest.folder / name)
            except OSError:
                found = ""
            if found != expected:
                try:
                    (manifest.folder / name).resolve().unlink()  # without the file its manifest is not valid
                except OSError:
                    for asked in (checkpoint, unpinned(checkpoint)):
                        self._manifest_path(asked).unlink(missing_ok=True)
                raise altered(name, checkpoint)
            done += size
        return manifest.folder

    # -- bringing ------------------------------------------------------------------------------

    def _bring(self, checkpoint: Checkpoint, progress: Progress) -> Checkpoint:
        try:
            with one_process_at_a_time(
                self._manifest_path(checkpoint).with_suffix(".lock"),
                lambda: progress("waiting for another process that fetches the same", 0, 0),
            ):
                manifest = self._valid_manifest(checkpoint) or self._from_cache(checkpoint, progress)
                if manifest is None:
                    self._link.require()
                    self._refuse_too_large(checkpoint)
                    manifest = self._download(checkpoint, progress)
                return checkpoint.model_copy(update={"revision": manifest.commit})
        except (SuiteError, Cancelled):
            raise
        except Exception as error:
            raise as_suite_error(error, checkpoint.id) from error

    def _download(self, checkpoint: Checkpoint, progress: Progress) -> Manifest:
        assert isinstance(checkpoint.source, HubSource)
        progress("asking the Hub which files there are", 0, 0)
        kind = kinds.get(checkpoint.kind)
        repository = Repository(checkpoint.source.repo, checkpoint.revision, self._link.api, progress, kind)
        repository.make_sure_of_memory()
        repository.make_sure_of_room(self._settings.cache_dir)
        folder = repository.fetch()
        return self._record(checkpoint, repository.commit, folder, [file.name for file in repository.wanted], progress)

    def _from_cache(self, checkpoint: Checkpoint, progress: Progress) -> Manifest | None:
        """Records a checkpoint that is complete in the Hub client's cache. Raises `WeightsCorrupt` where a file was
        altered."""
        found = self._in_cache(checkpoint)
        if found is None:
            return None
        for name in found.names:
            file = stated(found.folder / name)
            progress(f"checking {checkpoint.id}", 0, 0)
            if file is not None and not holds(found.folder / name, file):
                with contextlib.suppress(OSError):
                    (found.folder / name).resolve().unlink()  # without it the snapshot is not whole
                raise altered(name, checkpoint)
            if name.endswith("config.json"):
                refuse_remote_code(found.folder / name, checkpoint.id)
        return self._record(checkpoint, found.commit, found.folder, found.names, progress)

    def _record(
        self, checkpoint: Checkpoint, commit: str, folder: Path, names: Sequence[str], progress: Progress
    ) -> Manifest:
        """Turns pickles into safetensors, and writes the manifest."""
        resolved = checkpoint.model_copy(update={"revision": commit})
        if any(name.endswith(".bin") for name in names):
            try:
                folder = converted(resolved, folder, self._settings, to_safetensors, progress)
            except (WeightsCorrupt, MemoryRefused) as error:
                raise type(error)(f"{checkpoint.id} cannot be used: {error.message}", field="model") from error
            names = sorted(f.name for f in folder.iterdir() if f.is_file() and f.name != MANIFEST)
        files = {}
        for name in names:
            progress(f"recording {checkpoint.id}", 0, 0)
            files[name] = ((folder / name).stat().st_size, sha256_of(folder / name))
        content = {"checkpoint": checkpoint.id, "commit": commit, "folder": str(folder), "files": files}
        with atomic_file(self._manifest_path(checkpoint)) as part:
            part.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return Manifest(commit, folder, files)

    # -- what is there -------------------------------------------------------------------------

    def _manifest_path(self, checkpoint: Checkpoint) -> Path:
        return self._settings.cache_dir / "hub" / f"{checkpoint.folder}.json"

    def _valid_manifest(self, checkpoint: Checkpoint) -> Manifest | None:
        """The manifest, if every file is on disk in its recorded size; else None."""
        manifest = self._read_manifest(checkpoint)
        if manifest is None:
            return None
        try:
            sizes = {name: (manifest.folder / name).stat().st_size for name in manifest.files}
        except OSError:
            return None
        return manifest if sizes == {name: size for name, (size, _) in manifest.files.items()} else None

    def _read_manifest(self, checkpoint: Checkpoint) -> Manifest | None:
        """The manifest of the pinned commit, or one written for that commit when the catalog pinned none."""
        for asked in (checkpoint, unpinned(checkpoint)):
            try:
                content = json.loads(self._manifest_path(asked).read_text(encoding="utf-8"))
                files = {name: (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
                manifest = Manifest(content["commit"], Path(content["folder"]), files)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            if checkpoint.revision in ("", manifest.commit):
                return manifest
        return None

    def _in_cache(self, checkpoint: Checkpoint) -> Snapshot | None:
        """The checkpoint's snapshot if it is complete in the Hub client's cache, whichever program downloaded it."""
        found = whole_snapshot(checkpoint)
        if found is None:
            return None
        manifest = self._read_manifest(checkpoint.model_copy(update={"revision": found.commit}))
        # A recorded file that is missing was removed because it had been altered: it must be fetched again.
        recorded = manifest.files if manifest and manifest.folder == found.folder else ()
        return found if set(found.names).issuperset(recorded) else None


def altered(name: str, checkpoint: Checkpoint) -> WeightsCorrupt:
    return WeightsCorrupt(
        f"{name} of {checkpoint.id} was altered or cut short since it was fetched, so it was not loaded; ask again, "
        "and it is fetched anew"
    )


def unpinned(checkpoint: Checkpoint) -> Checkpoint:
    return checkpoint.model_copy(update={"revision": ""})
