"""Features → head: a logistic regression, its temperature, and the threshold of "none of these"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import softmax

from finetune.latin.five.features import ClipFeatures, select
from finetune.latin.five.recipe import HeadRecipe
from finetune.latin.synthesis.patterns import GENRES
from finetune.latin.synthesis.style import OTHER
from shared.engines.audio.musicnn_head import Head, Layer

NONE = "None of these"
LABELS = (*GENRES, NONE)
TEMPERATURES = np.geomspace(0.25, 8, 60)
BIASES = np.linspace(-4, 10, 281)


@dataclass(frozen=True)
class Trial:
    """What was tried on validation."""

    components: int
    strength: float
    score: float
    """Mean over genres and sources of the share of validation clips that is right."""
    transfer: float
    """Share of MMA's clips of the five, of training and validation, that a head gets right which saw none of them."""

    @property
    def worth(self) -> float:
        return (self.score + self.transfer) / 2


@dataclass(frozen=True)
class Axes:
    """Standardization and principal components of some training clips."""

    clips: list[ClipFeatures]
    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    """(features, features), that of most variance first."""


def best_head(clips: Sequence[ClipFeatures], recipe: HeadRecipe) -> tuple[Head, list[Trial]]:
    """Components and strength are chosen on training and validation, temperature and threshold calibrated on
    validation. No test clip is seen."""
    training, validation = select(clips, "train"), select(clips, "validation")
    synthetic = [clip for clip in validation if clip.source in ("own", "mma")]
    written = [clip for clip in [*training, *synthetic] if clip.source == "mma" and clip.genre in GENRES]
    axes, without = axes_of(training), axes_of([clip for clip in training if clip not in written])
    trials, heads = [], []
    for components in recipe.components:
        for strength in recipe.strengths:
            head = fitted(axes, recipe.layer, components, strength)
            blind = fitted(without, recipe.layer, components, strength)
            transfer = np.mean([among_five(blind, clip) == label_of(clip) for clip in written]) if written else 0.0
            trials.append(Trial(components, strength, balanced(head, synthetic), float(transfer)))
            heads.append(head)
    head = tempered(heads[int(np.argmax([trial.worth for trial in trials]))], synthetic)
    return thresholded(head, [clip for clip in validation if clip.genre == OTHER], recipe.false_positives), trials


def axes_of(training: Sequence[ClipFeatures]) -> Axes:
    x = np.concatenate([clip.features for clip in training]).astype(np.float64)
    mean, scale = x.mean(0), 1 / (x.std(0) + 1e-6)
    standard = (x - mean) * scale
    _, components = np.linalg.eigh(standard.T @ standard / len(standard))
    return Axes(list(training), mean, scale, components[:, ::-1])


def fitted(axes: Axes, layer: Layer, components: int, strength: float) -> Head:
    """Each label weighs as much as each other one."""
    from sklearn.linear_model import LogisticRegression

    basis = axes.components[:, :components]
    x = (np.concatenate([clip.features for clip in axes.clips]) - axes.mean) * axes.scale @ basis
    sizes = [len(clip.features) for clip in axes.clips]
    y = np.repeat([label_of(clip) for clip in axes.clips], sizes)
    model: Any = LogisticRegression(C=strength, max_iter=1000)
    model.fit(x, y, sample_weight=np.repeat(weights_of(axes.clips), sizes))
    order = [list(model.classes_).index(label) for label in range(len(LABELS))]
    arrays = (axes.mean, axes.scale, model.coef_[order] @ basis.T, model.intercept_[order])
    return Head(LABELS, layer, *(np.ascontiguousarray(array, dtype=np.float32) for array in arrays))


def weights_of(clips: Sequence[ClipFeatures]) -> np.ndarray:
    """(clips,), 1 in the mean."""
    keys = [clip.genre for clip in clips]
    count = {key: keys.count(key) for key in set(keys)}
    return np.array([len(keys) / (len(count) * count[key]) for key in keys])


def label_of(clip: ClipFeatures) -> int:
    return LABELS.index(NONE if clip.genre == OTHER else clip.genre)


def shares(head: Head, clip: ClipFeatures) -> np.ndarray:
    """(labels,): as the tab shows them, the mean of the windows' softmax."""
    return softmax(head(clip.features), axis=1).mean(0)


def answers(head: Head, clips: Sequence[ClipFeatures]) -> np.ndarray:
    """(clips,): numbers of the labels that win."""
    return np.array([int(shares(head, clip).argmax()) for clip in clips], dtype=int)


def among_five(head: Head, clip: ClipFeatures) -> int:
    """Number of the best of the five, whatever "none of these" has."""
    return int(shares(head, clip)[: len(GENRES)].argmax())


def balanced(head: Head, clips: Sequence[ClipFeatures]) -> float:
    """Mean over each pair of genre and source of the share of its clips that is right."""
    right = answers(head, clips) == np.array([label_of(clip) for clip in clips])
    kinds = [(clip.genre, clip.source) for clip in clips]
    return float(np.mean([right[[k == kind for k in kinds]].mean() for kind in sorted(set(kinds))]))


def tempered(head: Head, clips: Sequence[ClipFeatures]) -> Head:
    """Divides the logits so that shares are as sure as they are right (Guo et al. 2017, by the log-likelihood)."""

    def loss(temperature: float) -> float:
        cooler = replace(head, weight=head.weight / temperature, bias=head.bias / temperature)
        likelihoods = [np.log(shares(cooler, clip)[label_of(clip)] + 1e-9) for clip in clips]
        return -float(np.mean(each * likelihoods))

    each = weights_of(clips)
    best = np.float32(min(TEMPERATURES, key=loss))
    return replace(head, weight=head.weight / best, bias=head.bias / best)


def thresholded(head: Head, others: Sequence[ClipFeatures], false_positives: float) -> Head:
    """Raises the bias of "none of these" until of no source more than this share gets the name of a genre."""
    sources = sorted({clip.source for clip in others})
    for bias in BIASES:
        raised = head.bias.copy()
        raised[LABELS.index(NONE)] += np.float32(bias)
        careful = replace(head, bias=raised)
        named = answers(careful, others) != LABELS.index(NONE)
        if max(named[[clip.source == source for clip in others]].mean() for source in sources) <= false_positives:
            return careful
    raise ValueError("no threshold keeps music of other kinds out")
