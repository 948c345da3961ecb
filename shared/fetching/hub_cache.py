"""Checkpoints that are complete in the Hub client's cache (`HF_HOME`), whichever program downloaded them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from shared.checkpoints import kinds
from shared.checkpoints.catalog import Checkpoint, HubSource
from shared.checkpoints.repository import WantedFile
from shared.errors import SuiteError

NEWEST = "main"
"""The branch whose commit counts where none is pinned."""


@dataclass(frozen=True)
class Snapshot:
    """A repository's folder at one commit, with the names of the files that are needed of it."""

    commit: str
    folder: Path
    names: tuple[str, ...]


def snapshot(repo: str, commit: str) -> Path:
    """Where the Hub's client keeps a repository's files at a commit."""
    return _storage(repo) / "snapshots" / commit


def whole_snapshot(checkpoint: Checkpoint) -> Snapshot | None:
    """The checkpoint's snapshot at its revision, or at that of `main` where none is pinned; None unless it is complete.

    Reads names alone, no file's content, since every request and every checkpoint of a page needs the answer.
    """
    assert isinstance(checkpoint.source, HubSource)
    repo, kind = checkpoint.source.repo, kinds.get(checkpoint.kind)
    commit = checkpoint.revision or _newest(repo)
    if not commit:
        return None
    folder = snapshot(repo, commit)
    try:
        with os.scandir(folder) as entries:
            there = [WantedFile(entry.name, entry.stat().st_size) for entry in entries if entry.is_file()]
        names = tuple(file.name for file in kind.needed_files(there, checkpoint.id))
    except (OSError, SuiteError):
        return None  # nothing, or a part of it
    # Another program may have needed only some of the files.
    return Snapshot(commit, folder, names) if kind.is_whole(names) else None


def has_parts(repo: str) -> bool:
    """Whether a download of one of its files was begun here and not finished."""
    return any((_storage(repo) / "blobs").glob("*.part"))


def stated(file: Path) -> WantedFile | None:
    """A file of a snapshot with the hash the Hub stated, which names its blob; None where it lies there by itself."""
    blob = file.resolve()
    if blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return None
    return WantedFile(file.name, blob.stat().st_size, blob.name)


def _newest(repo: str) -> str:
    """The commit that the client saw last, "" if it never asked."""
    try:
        return (_storage(repo) / "refs" / NEWEST).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _storage(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
