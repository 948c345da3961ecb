"""Files and folders that get their name once they are complete, so that a killed process leaves no half of one."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(final: Path) -> Iterator[Path]:
    """The path of a new file beside `final`, which replaces `final` after the block, or is removed if the block raises.

    Each call has a path of its own, so several processes and threads may write the same file: the last one wins.
    """
    part = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        os.replace(part, final)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """A new folder beside `final`, which replaces `final` after the block, or is removed if the block raises.

    For one process at a time; folders that a killed process left are removed.
    """
    part, old = final.with_name(f".{final.name}.part"), final.with_name(f".{final.name}.old")
    for left in (part, old):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if final.exists():
            os.replace(final, old)
        os.replace(part, final)
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)
