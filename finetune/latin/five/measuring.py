"""What the head is worth, each kind of music by itself, on clips that no choice was made on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from finetune.latin.five.features import ClipFeatures, select
from finetune.latin.five.fitting import LABELS, NONE, among_five, answers, label_of
from finetune.latin.synthesis.patterns import GENRES
from finetune.latin.synthesis.style import OTHER
from finetune.results.scores import bootstrap, interval
from shared.engines.audio.musicnn_head import Head


@dataclass(frozen=True)
class Figure:
    """One row of the table. Shares are 0 to 1."""

    music: str
    n: int
    groups: int
    """Groove files or tracks that the clips are of; 0 where each clip stands alone."""
    right: float
    interval: tuple[float, float]
    """95 %, by resampling clips; of grooves and tracks, whole ones, since clips of one are alike."""
    among_five: float | None
    """Share right where "none of these" is no answer; None for music of other kinds."""
    none: float
    """Share called none of these."""
    said: dict[str, int]


def figures(head: Head, synthetic: Sequence[ClipFeatures], real: Sequence[ClipFeatures]) -> list[Figure]:
    rows = [("own patterns, unseen soundfont", [c for c in select(synthetic, "test", "own") if c.genre in GENRES])]
    rows += [(f"own patterns: {genre}", select(synthetic, "test", "own", genre=genre)) for genre in GENRES]
    left_out = [c for c in select(synthetic, "test", "mma") if c.genre in GENRES]
    rows.append(("MMA grooves left out, unseen soundfont", left_out))
    rows += [(f"MMA {name}", [c for c in left_out if c.group == name]) for name in sorted({c.group for c in left_out})]
    rows.append(("MMA of other kinds, files left out", select(synthetic, "test", "mma", genre=OTHER)))
    rows.append(("real music of other kinds", select(real, "test")))
    rows += [(f"real: {name}", select(real, "test", name)) for name in sorted({c.source for c in real})]
    return [figure(head, name, clips) for name, clips in rows if clips]


def figure(head: Head, music: str, clips: Sequence[ClipFeatures]) -> Figure:
    said = answers(head, clips)
    truth = np.array([label_of(clip) for clip in clips])
    right = (said == truth).astype(float)
    genres = truth != LABELS.index(NONE)
    five = np.array([among_five(head, clip) for clip in clips])
    groups = sorted({clip.group for clip in clips} - {""})
    return Figure(
        music,
        len(clips),
        len(groups),
        round(float(right.mean()), 3),
        group_interval(right, [clip.group for clip in clips]) if len(groups) > 3 else interval(right),
        round(float((five == truth).mean()), 3) if genres.all() else None,
        round(float((said == LABELS.index(NONE)).mean()), 3),
        {label: int((said == number).sum()) for number, label in enumerate(LABELS)},
    )


def group_interval(right: np.ndarray, groups: Sequence[str]) -> tuple[float, float]:
    """95 % interval by resampling whole groups with replacement."""
    names = sorted(set(groups))
    sums = np.array([right[[g == name for g in groups]].sum() for name in names])
    sizes = np.array([sum(g == name for g in groups) for name in names])
    return bootstrap((sums, sizes), lambda right, size, axis: right.sum(axis) / size.sum(axis), digits=3)


def as_table(figures: Sequence[Figure]) -> str:
    lines = [
        "| held-out music | clips | right | 95 % | right among the five | called none of these |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in figures:
        five = "" if row.among_five is None else f"{row.among_five:.2f}"
        files = f" of {row.groups}" if row.groups else ""
        low, high = row.interval
        lines.append(
            f"| {row.music} | {row.n}{files} | {row.right:.2f} | {low:.2f} to {high:.2f} | {five} | {row.none:.2f} |"
        )
    lines.append("| real recordings of the five | | not measured: none can be fetched here | | | |")
    return "\n".join(lines)


def as_json(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    return [asdict(row) for row in figures]
