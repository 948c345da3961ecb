"""A repository's needed files into the Hub client's cache (`HF_HOME`), each checked against what the Hub states.

The client itself (2.4) throws away what it has of a file when a download fails or is killed, may wait many minutes
for a Hub that is silent, and does not let go when nobody wants the file any more. So the bytes are ours to bring; where
they are put is the client's layout, under the client's own lock, and other programs find them there.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.atomic import atomic_file
from shared.checkpoints.kinds import Kind
from shared.checkpoints.pytorch_bin import refuse_without_memory
from shared.checkpoints.repository import WantedFile, refuse_remote_code, stated_files
from shared.errors import SuiteError, WeightsCorrupt
from shared.events import Progress
from shared.fetching.hub_cache import has_parts, snapshot
from shared.fetching.hub_errors import ANSWER_WITHIN, HubUnreachable, connection_errors, model_info, without_addresses
from shared.fetching.single_flight import one_process_at_a_time
from shared.fetching.transfer import Transfer

MARGIN = 200 * 10**6
"""Bytes left free on the disk."""


class Repository:
    """A model repository at one commit, on its way to this machine."""

    def __init__(self, repo: str, revision: str, api: Any, progress: Progress, kind: Kind) -> None:
        """Asks the Hub which files there are. Raises `SuiteError` where it does not say, or for one unfit for us."""
        self.repo, self.api, self._progress = repo, api, progress
        try:
            info = model_info(api, repo, revision, lambda: progress("the Hub asks us to wait", 0, 0))
        except HubUnreachable as error:
            if not has_parts(repo):
                raise
            kept = "What was fetched so far is kept, and the next attempt goes on from there"
            raise HubUnreachable(f"{error.message}. {kept}") from error
        self.commit: str = info.sha
        self.wanted = stated_files(info.siblings or [], repo, kind.needed_files)
        self.folder = snapshot(repo, self.commit)

    @property
    def has_pickles(self) -> bool:
        return any(file.name.endswith(".bin") for file in self.wanted)

    def make_sure_of_memory(self) -> None:
        """Refuses, before the first byte, a pickle of the older format that memory has no room for."""
        pickles = sum(file.size for file in self.wanted if file.name.endswith(".bin"))
        refuse_without_memory(pickles, self.repo, ". Nothing was fetched")

    def make_sure_of_room(self, converted_dir: Path) -> None:
        """Refuses, before the first byte, files that a disk has no room for. A pickle is stored twice: published,
        converted."""
        missing = sum(file.size for file in self.wanted if not (self.folder / file.name).exists())
        needed = [("HF_HOME", self.folder.parents[2], missing)]
        if self.has_pickles:
            needed.append(("SUITE_CACHE_DIR", converted_dir, sum(file.size for file in self.wanted)))
        on_disk: dict[int, int] = {}
        for variable, folder, nbytes in needed:
            folder.mkdir(parents=True, exist_ok=True)
            disk = folder.stat().st_dev
            on_disk[disk] = on_disk.get(disk, 0) + nbytes
            free = shutil.disk_usage(folder).free
            if free < on_disk[disk] + MARGIN:
                raise SuiteError(
                    f"the disk is too full: {(on_disk[disk] + MARGIN) / 1e6:,.0f} MB are needed and "
                    f"{free / 1e6:,.0f} MB are free in {folder}. Make room, or name a folder on a larger disk in "
                    f"{variable}. Nothing was fetched"
                )

    def fetch(self) -> Path:
        """Brings every wanted file, the smallest first, so an unfit repository costs little; returns the folder."""
        meter = Meter(self._progress, "fetching", sum(file.size for file in self.wanted))
        for file in self.wanted:
            self._bring(file, meter)
            meter.file_done(file.size)
            if file.name.endswith("config.json"):
                refuse_remote_code(self.folder / file.name, self.repo)
        return self.folder

    def _bring(self, file: WantedFile, meter: Meter) -> None:
        pointer = self.folder / file.name
        if holds(pointer, file):
            meter.begin(file.size)
            return
        storage = self.folder.parents[1]
        blob = storage / "blobs" / file.digest
        blob.parent.mkdir(parents=True, exist_ok=True)
        with one_process_at_a_time(
            storage.parent / ".locks" / storage.name / f"{file.digest}.lock",
            lambda: self._progress("waiting for another process that fetches the same", 0, 0),
        ):
            if holds(blob, file):
                meter.begin(file.size)
            else:
                self._fetch(file, blob, meter)
            _show(blob, pointer)

    def _fetch(self, file: WantedFile, blob: Path, meter: Meter) -> None:
        """Downloads to a file with the hash in its name, and renames it to the blob once its content has that hash."""
        part = blob.with_name(f"{file.digest}.part")
        transfer = Transfer(
            lambda headers: stream(self.api, self.repo, self.commit, file.name, headers),
            file.size,
            part,
            meter,
            self._refuse,
            connection_errors(),
        )
        meter.begin(transfer.have)
        try:
            cause = transfer.run()
        finally:
            if not transfer.have:
                part.unlink(missing_ok=True)
        if not file.size:
            part.touch()
        if cause:
            raise HubUnreachable(
                f"the connection broke while {self.repo} was fetched ({without_addresses(cause)}); "
                f"{transfer.have / 1e6:,.1f} of {file.size / 1e6:,.1f} MB of {file.name} are here. Try again: it goes "
                "on from there"
            )
        if not holds(part, file):
            part.unlink()
            raise WeightsCorrupt(
                f"{file.name} of {self.repo} arrived with another content than the Hub states (its hash differs) and "
                "was thrown away; try again, or from another network"
            )
        os.replace(part, blob)

    def _refuse(self, response: Any) -> None:
        from huggingface_hub.utils import hf_raise_for_status

        response.read()
        hf_raise_for_status(response)
        raise HubUnreachable(f"the Hub answered {response.status_code} for {self.repo}; try again later")


def stream(api: Any, repo: str, commit: str, name: str, headers: dict[str, str]) -> Any:
    """A request for a file's bytes. Our token goes to the Hub alone: httpx drops it when it is sent on to a storage."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session

    url = hf_hub_url(repo, name, revision=commit, endpoint=api.endpoint)
    asked = {**build_hf_headers(), **headers, "Accept-Encoding": "identity"}
    # The session of this moment: the client closes and replaces it when a connection of anybody's fails.
    return get_session().stream("GET", url, headers=asked, follow_redirects=True, timeout=ANSWER_WITHIN)


def holds(path: Path, file: WantedFile) -> bool:
    """Whether the file is there, whole and right."""
    try:
        with path.open("rb") as content:
            return os.fstat(content.fileno()).st_size == file.size and file.is_right(content)
    except FileNotFoundError:
        return False


def _show(blob: Path, pointer: Path) -> None:
    """Gives a blob its name in the snapshot: by a link, or by a copy where there are none."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(pointer) as part:
        try:
            part.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            shutil.copyfile(blob, part)


class Meter:
    """Bytes of all files together, and the rate at which they come."""

    def __init__(self, progress: Progress, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._what, self._total, self._clock = progress, what, total, clock
        self._finished = self._arrived = self._current = 0
        self._begun = clock()

    def begin(self, done: int) -> None:
        """Starts a file of which `done` bytes are on disk already."""
        self._current = done

    def __call__(self, done: int) -> None:
        """Reports that `done` bytes of the current file are on disk."""
        self._arrived += max(done - self._current, 0)
        self._current = done
        seconds = self._clock() - self._begun
        rate = f" at {self._arrived / seconds / 1e6:.1f} MB/s" if seconds > 0.5 and self._arrived else ""
        self._progress(self._what + rate, self._finished + done, self._total)

    def file_done(self, size: int) -> None:
        self(size)
        self._finished, self._current = self._finished + size, 0
