"""A repository's files on disk: only those that are needed, brought by the Hub's own client, checked, and recorded.

Files lie in the Hub client's cache (`HF_HOME`), where other programs find them too. What we checked of them, and at
which commit, is written down last, in `<cache>/hub/<checkpoint>.json`; without that note nothing is loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from shared.catalog import Checkpoint, HubSource
from shared.conversion import converted
from shared.errors import Cancelled, SuiteError, WeightsCorrupt, WeightsMissing
from shared.events import Loading, Progress
from shared.hub_errors import in_words
from shared.hub_fetch import Repository, snapshot
from shared.hub_link import HubLink
from shared.pytorch_bin import to_safetensors
from shared.repository import WantedFile, refuse_remote_code, wanted_files
from shared.settings import Settings
from shared.single_flight import SingleFlight
from shared.weights import sha256_of


@dataclass(frozen=True)
class Kept:
    """What the note says: the commit, and size and SHA-256 of each file in the folder."""

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

    def on_disk(self, checkpoint: Checkpoint) -> bool:
        return self._kept(checkpoint) is not None

    def ensure(self, checkpoint: Checkpoint) -> Generator[Loading, None, Checkpoint]:
        """Brings what is missing, yielding progress; returns the checkpoint with the commit that is on disk.

        When the last one who waits leaves, the download stops; the next attempt goes on from there.
        Raises `SuiteError`s that say why it cannot be had.
        """
        kept = self._kept(checkpoint)
        if kept is not None:
            return checkpoint.model_copy(update={"revision": kept.commit})
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
        kept = self._kept(checkpoint)
        if kept is None:
            raise WeightsMissing(f"{checkpoint.id} is not on this machine yet")
        done = 0
        for name, (size, expected) in kept.files.items():
            progress(f"checking {checkpoint.id}", done, kept.nbytes)
            if sha256_of(kept.folder / name) != expected:
                self._note(checkpoint).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    (kept.folder / name).resolve().unlink()
                raise WeightsCorrupt(
                    f"{name} of {checkpoint.id} was altered or cut short since it was fetched, so it was not loaded; "
                    "ask again, and it is fetched anew"
                )
            done += size
        return kept.folder

    # -- bringing ------------------------------------------------------------------------------

    def _bring(self, checkpoint: Checkpoint, progress: Progress) -> Checkpoint:
        note = self._note(checkpoint)
        note.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(note.with_suffix(".lock"))
        while True:
            try:
                lock.acquire(timeout=0.5)
                break
            except Timeout:
                progress("waiting for another process that fetches the same", 0, 0)
        try:
            kept = self._kept(checkpoint) or self._from_cache(checkpoint, progress)
            if kept is None:
                self._link.require()
                self._refuse_too_large(checkpoint)
                kept = self._download(checkpoint, progress)
            return checkpoint.model_copy(update={"revision": kept.commit})
        except (SuiteError, Cancelled):
            raise
        except Exception as error:
            raise in_words(error, checkpoint.id) from error
        finally:
            lock.release()

    def _download(self, checkpoint: Checkpoint, progress: Progress) -> Kept:
        assert isinstance(checkpoint.source, HubSource)
        progress("asking the Hub which files there are", 0, 0)
        repository = Repository(checkpoint.source.repo, checkpoint.revision, self._link.api)
        repository.make_sure_of_room(self._settings.cache_dir)
        folder = repository.fetch(progress)
        return self._keep(checkpoint, repository.commit, folder, [file.name for file in repository.wanted], progress)

    def _from_cache(self, checkpoint: Checkpoint, progress: Progress) -> Kept | None:
        """A snapshot that another program, or a Space's build, has put into the Hub client's cache."""
        assert isinstance(checkpoint.source, HubSource)
        repo, commit = checkpoint.source.repo, checkpoint.revision
        if not commit:
            if self._link.state not in ("off", "offline", "silent"):
                return None  # the Hub knows better which commit is the newest
            reference = snapshot(repo, "x").parent.parent / "refs" / "main"
            try:
                commit = reference.read_text(encoding="utf-8").strip()
            except OSError:
                return None
        folder = snapshot(repo, commit)
        if not folder.is_dir():
            return None
        there = [
            WantedFile(f.relative_to(folder).as_posix(), f.stat().st_size) for f in folder.rglob("*") if f.is_file()
        ]
        try:
            names = [file.name for file in wanted_files(there, checkpoint.id)]
        except SuiteError:
            return None  # only a part of it is there
        for name in names:
            if name.endswith("config.json"):
                refuse_remote_code(folder / name, checkpoint.id)
        return self._keep(checkpoint, commit, folder, names, progress)

    def _keep(self, checkpoint: Checkpoint, commit: str, folder: Path, names: list[str], progress: Progress) -> Kept:
        """Turns pickles into safetensors, and writes the note that makes the files count."""
        resolved = checkpoint.model_copy(update={"revision": commit})
        if any(name.endswith(".bin") for name in names):
            folder = converted(resolved, folder, self._settings, to_safetensors, progress)
            names = sorted(f.name for f in folder.iterdir() if f.is_file() and f.name != "converted.json")
        files = {}
        for name in names:
            progress(f"recording {checkpoint.id}", 0, 0)
            files[name] = ((folder / name).stat().st_size, sha256_of(folder / name))
        note = self._note(checkpoint)
        content = {"checkpoint": checkpoint.id, "commit": commit, "folder": str(folder), "files": files}
        part = note.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(part, note)
        return Kept(commit, folder, files)

    # -- what is there -------------------------------------------------------------------------

    def _note(self, checkpoint: Checkpoint) -> Path:
        return self._settings.cache_dir / "hub" / f"{checkpoint.folder}.json"

    def _kept(self, checkpoint: Checkpoint) -> Kept | None:
        """What the note says, if every file is there in its size."""
        try:
            content = json.loads(self._note(checkpoint).read_text(encoding="utf-8"))
            files = {name: (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
            kept = Kept(content["commit"], Path(content["folder"]), files)
            whole = all((kept.folder / name).stat().st_size == size for name, (size, _) in files.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return kept if whole else None
