"""musicnn's features of each clip's windows, cached beside the clip, since computing them takes longest."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.engines.audio.musicnn import Musicnn
from shared.engines.audio.musicnn_head import Layer
from shared.media.recordings import Recording, windows

WINDOW = 3.0
REAL_MUSIC = {
    "supertuxkart-data": "/usr/share/games/supertuxkart/data/music",
    "warzone2100-music": "/usr/share/games/warzone2100/music",
    "singularity-music": "/usr/share/games/singularity/music",
}
"""Debian's packages of music that people made and recorded, none of it of the five genres."""
CLIPS_OF_A_TRACK, CLIP_SECONDS = 3, 6.0
Tick = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """One clip: where it is from, and its features (windows, width)."""

    genre: str
    source: str
    """`own`, `mma`, or the package of real music."""
    group: str
    """Groove file, or track."""
    split: str
    features: np.ndarray


def read_clips(folder: Path, engine: Musicnn, layer: Layer, tick: Tick) -> list[ClipFeatures]:
    """What `python -m finetune.latin.synthesis` wrote."""
    with (folder / "clips.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for done, row in enumerate(rows, 1):
        path = folder / row["file"]
        file = path.with_name(f"{path.name}.{layer}.npy")
        features = cached(file, lambda path=path: of_clip(path, engine, layer))
        found.append(ClipFeatures(row["genre"], row["source"], row["groove_file"], row["split"], features))
        tick(done, len(rows))
    return found


def real_music(cache: Path, engine: Musicnn, layer: Layer, tick: Tick) -> list[ClipFeatures]:
    """Three clips of each track that is installed here, none where no package is. Nothing of it is ever trained on.

    Half of the tracks calibrate (`validation`), the other half measure (`test`): divided by name, a track and its fast
    version on one side.
    """
    cache.mkdir(parents=True, exist_ok=True)
    tracks = [
        (package, path)
        for package, folder in REAL_MUSIC.items()
        for path in sorted(Path(folder).rglob("*"))
        if path.suffix in (".ogg", ".opus")
    ]
    found = []
    for done, (package, path) in enumerate(tracks, 1):
        stem = path.stem.removesuffix("_fast").removesuffix("_f").removesuffix("_enhanced")
        split = "validation" if hashlib.sha256(f"{package}/{stem}".encode()).digest()[0] < 128 else "test"
        file = cache / f"{package}--{path.stem}.{layer}.npy"
        some = cached(file, lambda path=path: of_track(path, engine, layer))
        found += [ClipFeatures("Other", package, stem, split, features) for features in some]
        tick(done, len(tracks))
    return found


def pieces(path: Path, rate: int) -> Iterator[np.ndarray]:
    """Audible pieces of a track, from its first two minutes."""
    with Recording(path, 120) as recording:
        sound = np.concatenate(list(recording.mono(rate)))
    size = int(CLIP_SECONDS * rate)
    for place in range(CLIPS_OF_A_TRACK):
        start = int((place + 0.5) / CLIPS_OF_A_TRACK * max(0, len(sound) - size))
        piece = sound[start : start + size]
        if len(piece) == size and np.sqrt(np.mean(piece**2)) > 1e-3:
            yield piece


def of_track(path: Path, engine: Musicnn, layer: Layer) -> np.ndarray:
    """(pieces, windows, width)."""
    size = int(WINDOW * engine.sampling_rate)
    found = [engine.features([piece[:size], piece[size:]], layer=layer) for piece in pieces(path, engine.sampling_rate)]
    return np.stack(found) if found else np.zeros((0, 2, 1), np.float32)


def of_clip(path: Path, engine: Musicnn, layer: Layer) -> np.ndarray:
    """(windows, width). Raises `InvalidInput` for what is no sound."""
    with Recording(path, 60) as recording:
        blocks = recording.mono(engine.sampling_rate)
        cut = [window.samples for window in windows(blocks, engine.sampling_rate, WINDOW, WINDOW)]
    return engine.features(cut, layer=layer)


def cached(file: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The file's content, or else the computed features, which are written to it."""
    try:
        return np.load(file)
    except (OSError, ValueError, EOFError):
        features = compute()
        np.save(file, features)
        return features


def select(clips: Sequence[ClipFeatures], split: str, *sources: str, genre: str = "") -> list[ClipFeatures]:
    return [
        clip
        for clip in clips
        if clip.split == split and (not sources or clip.source in sources) and genre in ("", clip.genre)
    ]
