"""Recordings as rows: `audio` is the path of a file on this machine, `label` the folder's name.

`datasets` needs torchcodec, and that needs FFmpeg's libraries, even to list recordings that are not decoded. Where both
are, its `audiofolder` lists them, which also knows a metadata.csv beside them; elsewhere we do, with the same columns.
Decoding is libsndfile's in either case (`shared.media.recordings`), so a model hears the same on every machine.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from shared.atomic import atomic_file
from shared.errors import SuiteError

Row = dict[str, Any]

SOUND = (".wav", ".flac", ".ogg", ".opus", ".mp3")
HELD_OUT = ("test", "validation", "valid", "dev", "eval")
"""Folders of a repository whose recordings are of another split than `train`."""


@functools.cache
def has_torchcodec() -> bool:
    """Whether torchcodec is installed and finds FFmpeg's libraries."""
    try:
        importlib.import_module("torchcodec.decoders")
        importlib.import_module("torchcodec.encoders")
    except (ImportError, OSError, RuntimeError):  # the last two where FFmpeg is missing
        return False
    return True


def folder_rows(folder: Path) -> Iterator[Row]:
    """A folder of folders named by label, with recordings in them."""
    return audiofolder_rows(folder) if has_torchcodec() else listed_rows(folder)


def listed_rows(folder: Path) -> Iterator[Row]:
    for labelled in sorted(path for path in folder.iterdir() if path.is_dir()):
        for file in sorted(path for path in labelled.rglob("*") if path.suffix.lower() in SOUND):
            yield {"audio": str(file), "label": labelled.name}


def audiofolder_rows(folder: Path) -> Iterator[Row]:
    import datasets

    # All of it is one split: by itself, `audiofolder` takes what has "test" in its name for another.
    rows = datasets.load_dataset(
        "audiofolder", data_dir=str(folder), data_files={"train": "**"}, split="train", streaming=True
    )
    for row in rows.cast_column("audio", datasets.Audio(decode=False)):
        file = Path(row["audio"]["path"])
        place = file.relative_to(folder)
        if len(place.parts) > 1 and file.suffix.lower() in SOUND:
            yield {**row, "audio": str(file), "label": place.parts[0]}


def repository_rows(dataset: str, split: str, revision: str | None) -> Iterator[Row]:
    """A repository of recordings in folders, fetched whole. Of `genres/train/salsa/1.wav` the label is salsa."""
    import huggingface_hub

    patterns = [f"*{ending}" for ending in SOUND]
    root = Path(
        huggingface_hub.snapshot_download(dataset, repo_type="dataset", revision=revision, allow_patterns=patterns)
    )
    for file in sorted(path for path in root.rglob("*") if path.suffix.lower() in SOUND):
        *folders, label = file.relative_to(root).parent.parts or ("",)
        inside = split in folders or (split == "train" and not set(folders) & set(HELD_OUT))
        if label and inside:
            yield {"audio": str(file), "label": label}


def write_recordings(rows: Iterator[Row], column: str, folder: Path) -> Iterator[Row]:
    """Rows whose recordings are bytes (as data sets hold them) with these written into `folder`, by their hash.

    Raises `SuiteError` for what is no recording.
    """
    for row in rows:
        sound = row.get(column)
        if not isinstance(sound, dict):
            yield row
            continue
        content, name = sound.get("bytes"), str(sound.get("path") or "")
        if content is None and Path(name).is_file():
            yield {**row, column: name}
            continue
        if not isinstance(content, bytes):
            raise SuiteError(f"the column {column!r} holds no recordings but {sorted(sound)}", field="data.input")
        ending = PurePosixPath(name).suffix.lower()
        file = folder / (hashlib.sha256(content).hexdigest()[:32] + (ending if ending in SOUND else ""))
        if not file.is_file() or file.stat().st_size != len(content):
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(file) as part:
                part.write_bytes(content)
        yield {**row, column: str(file)}
