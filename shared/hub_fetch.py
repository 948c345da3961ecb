"""A repository's needed files into the Hub client's cache (`HF_HOME`), each checked against what the Hub states."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.errors import SuiteError, WeightsCorrupt
from shared.events import Progress
from shared.hub_errors import HubUnreachable, connection_errors, patiently
from shared.repository import WantedFile, refuse_remote_code, wanted_files
from shared.transfer import Transfer

MARGIN = 200 * 10**6
"""Bytes left free on the disk."""
LARGE = 10 * 10**6
"""Bytes from which a file is worth going on with after an interruption."""


class Repository:
    """A model repository at one commit, on its way to this machine."""

    def __init__(self, repo: str, revision: str, api: Any) -> None:
        """Asks the Hub which files there are. Raises what its client raises, and `SuiteError` for one unfit for us."""
        self.repo, self.api = repo, api
        info = patiently(lambda: api.model_info(repo, revision=revision or None, files_metadata=True))
        self.commit: str = info.sha
        self.wanted = wanted_files(info.siblings or [], repo)
        self.folder = snapshot(repo, self.commit)

    @property
    def has_pickles(self) -> bool:
        return any(file.name.endswith(".bin") for file in self.wanted)

    def make_sure_of_room(self, converted_dir: Path) -> None:
        """Refuses before the first byte where a disk cannot hold what comes. A pickle is kept and written anew."""
        missing = sum(file.size for file in self.wanted if not (self.folder / file.name).exists())
        needed = [("HF_HOME", self.folder.parents[2], missing)]
        if self.has_pickles:
            needed.append(("SUITE_CACHE_DIR", converted_dir, missing))
        for variable, folder, nbytes in needed:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < nbytes + MARGIN:
                raise SuiteError(
                    f"the disk is too full: {(nbytes + MARGIN) / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are "
                    f"free in {folder}. Make room, or name a folder on a larger disk in {variable}. Nothing was fetched"
                )

    def fetch(self, progress: Progress) -> Path:
        """Brings every wanted file, the smallest first, so an unfit repository costs little; returns the folder."""
        from huggingface_hub import hf_hub_download

        quiet: Any = Silent
        meter = Meter(progress, "fetching", sum(file.size for file in self.wanted))
        for file in self.wanted:
            if len(file.digest) == 64 and file.size > LARGE and not (self.folder / file.name).exists():
                self._fetch_blob(file, meter)
            path = Path(
                hf_hub_download(
                    self.repo, file.name, revision=self.commit, endpoint=self.api.endpoint, tqdm_class=quiet
                )
            )
            if path.stat().st_size != file.size or file.digest_of(path) != file.digest:
                path.resolve().unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                raise self._altered(file)
            meter.file_done(file.size)
            if file.name.endswith("config.json"):
                refuse_remote_code(path, self.repo)
        return self.folder

    def _fetch_blob(self, file: WantedFile, meter: Meter) -> None:
        """Brings a large file to where the client finds it.

        The client itself (2.4) throws away what it has of a file when a download fails or is killed. Our part of it
        stays, bears the file's hash in its name, and becomes the blob of that hash once it is whole and right.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        blob = self.folder.parents[1] / "blobs" / file.digest
        if blob.exists():
            return
        blob.parent.mkdir(parents=True, exist_ok=True)
        part = blob.with_name(f"{file.digest}.part")
        session = get_session()
        url = hf_hub_url(self.repo, file.name, revision=self.commit, endpoint=self.api.endpoint)

        def ask(headers: dict[str, str]) -> Any:
            asked = {**build_hf_headers(), **headers, "Accept-Encoding": "identity"}
            return session.stream("GET", url, headers=asked, follow_redirects=True)

        def refuse(response: Any) -> None:
            response.read()
            hf_raise_for_status(response)
            raise HubUnreachable(
                f"the Hub answered {response.status_code} for {file.name} of {self.repo}; try again later"
            )

        meter.begin(part.stat().st_size if part.exists() else 0)
        transfer = Transfer(ask, file.size, part, meter, refuse, connection_errors())
        if cause := transfer.run():
            raise HubUnreachable(
                f"the connection broke while {self.repo} was fetched ({cause}); {transfer.have / 1e6:,.1f} of "
                f"{file.size / 1e6:,.1f} MB of {file.name} are here. Try again: it goes on from there"
            )
        if file.digest_of(part) != file.digest:
            part.unlink()
            raise self._altered(file)
        os.replace(part, blob)

    def _altered(self, file: WantedFile) -> WeightsCorrupt:
        return WeightsCorrupt(
            f"{file.name} of {self.repo} arrived with another content than the Hub states (its hash differs) and was "
            "thrown away; try again, or from another network"
        )


def snapshot(repo: str, commit: str) -> Path:
    """Where the Hub's client keeps a repository's files at a commit."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots" / commit


class Meter:
    """Bytes of all files together, and the rate at which they come."""

    def __init__(self, progress: Progress, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._what, self._total, self._clock = progress, what, total, clock
        self._finished = self._arrived = self._current = 0
        self._begun = clock()

    def begin(self, done: int) -> None:
        """A file of which `done` bytes are here already."""
        self._current = done

    def __call__(self, done: int) -> None:
        """`done` bytes of the current file are here now."""
        self._arrived += max(done - self._current, 0)
        self._current = done
        seconds = self._clock() - self._begun
        rate = f" at {self._arrived / seconds / 1e6:.1f} MB/s" if seconds > 0.5 and self._arrived else ""
        self._progress(self._what + rate, self._finished + done, self._total)

    def file_done(self, size: int) -> None:
        self(size)
        self._finished, self._current = self._finished + size, 0


class Silent:
    """A stand-in for tqdm: the client's own bars would go to the server's console."""

    n = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        return

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None
