"""Weights converted once into the form an engine reads fastest, on disk beside the originals."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from shared.atomic import atomic_folder
from shared.checkpoints.catalog import Checkpoint
from shared.checkpoints.weights import sha256_of
from shared.errors import SuiteError
from shared.events import Progress
from shared.settings import Settings

log = logging.getLogger(__name__)

MANIFEST = "converted.json"
"""SHA-256 of every converted file. Written last, so a folder without it is not used."""


def converted(
    checkpoint: Checkpoint,
    source: Path,
    settings: Settings,
    convert: Callable[[Path, Path], None],
    progress: Progress,
    form: str = "",
    number: int = 1,
) -> Path:
    """Folder of the checkpoint in one `form`, which `convert(source, target)` writes when it is missing or damaged.

    `number` is that of the form's layout. Whoever changes what `convert` writes, or how an engine reads it, raises it:
    a folder of another number is never loaded, but removed once this one is converted. Number 1 has no mark in the
    folder's name, as from before layouts were numbered.

    Safe against being killed in the middle (the next call starts over) and against two processes at once.
    Raises `SuiteError` when the disk is full.
    """
    stem = f"{checkpoint.folder}{f'-{form}' if form else ''}"
    final = settings.converted_dir / (stem if number == 1 else f"{stem}.format{number}")
    settings.converted_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(final.with_name(f"{final.name}.lock")):
        if _is_whole(final, progress):
            return final
        shutil.rmtree(final, ignore_errors=True)
        _remove_other_formats(final, stem)
        progress(f"converting {checkpoint.id}, once", 0, 0)
        try:
            with atomic_folder(final) as part:
                convert(source, part)
                (part / MANIFEST).unlink(missing_ok=True)  # where the source was converted itself, and is copied
                hashes = {file.name: sha256_of(file) for file in sorted(part.iterdir())}
                (part / MANIFEST).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        except OSError as error:
            free = shutil.disk_usage(settings.converted_dir).free
            raise SuiteError(
                f"{checkpoint.id} could not be converted: {error.strerror or error} ({free / 1e6:,.0f} MB are free in "
                f"{settings.converted_dir}). Make room, or set SUITE_CACHE_DIR to a larger disk, and try again"
            ) from error
        return final


def _remove_other_formats(final: Path, stem: str) -> None:
    """Removes folders of the same form in other layouts, with their locks."""
    of_this_form = re.compile(rf"{re.escape(stem)}(\.format\d+)?")
    for other in final.parent.iterdir():
        if other.is_dir() and other != final and of_this_form.fullmatch(other.name):
            log.warning(
                "%s was converted by another version of the suite: it is converted again as %s", other, final.name
            )
            shutil.rmtree(other, ignore_errors=True)
            other.with_name(f"{other.name}.lock").unlink(missing_ok=True)


def _is_whole(folder: Path, progress: Progress) -> bool:
    """Whether every file is there and has the hash it was written with."""
    try:
        hashes: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    for name, expected in hashes.items():
        file = folder / name
        if not file.is_file():
            return False
        progress(f"checking {name}", 0, file.stat().st_size)
        if sha256_of(file) != expected:
            return False
    return True
