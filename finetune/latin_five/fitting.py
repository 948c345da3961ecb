"""Features → head: a logistic regression, its temperature, and the threshold of "none of these"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finetune.latin_five.heard import Heard, chosen
from finetune.latin_five.recipe import HeadRecipe
from finetune.latin_synthesis.patterns import GENRES
from finetune.latin_synthesis.style import OTHER
from shared.engines.musicnn_head import Head, Layer

NONE = "None of these"
LABELS = (*GENRES, NONE)
TEMPERATURES = np.geomspace(0.25, 8, 60)
BIASES = np.linspace(-4, 10, 281)


@dataclass(frozen=True)
class Trial:
    """What was tried on validation: mean over genres and over sources of the share that is right."""

    layer: Layer
    strength: float
    score: float


def best_head(heard: Mapping[Layer, Sequence[Heard]], recipe: HeadRecipe) -> tuple[Head, list[Trial]]:
    """Layer and strength are chosen on validation, temperature and threshold calibrated there. No test clip is seen."""
    trials, heads = [], []
    for layer in recipe.layers:
        training, validation = chosen(heard[layer], "train"), chosen(heard[layer], "validation", "own", "mma")
        for strength in recipe.strengths:
            head = fitted(training, layer, strength)
            trials.append(Trial(layer, strength, balanced(head, validation)))
            heads.append(head)
    best = int(np.argmax([trial.score for trial in trials]))
    validation = chosen(heard[trials[best].layer], "validation")
    head = tempered(heads[best], [clip for clip in validation if clip.source in ("own", "mma")])
    return thresholded(head, [clip for clip in validation if clip.genre == OTHER], recipe.false_positives), trials


def fitted(training: Sequence[Heard], layer: Layer, strength: float) -> Head:
    """Each label weighs as much as each other one."""
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([clip.features for clip in training]).astype(np.float64)
    sizes = [len(clip.features) for clip in training]
    y = np.repeat([label_of(clip) for clip in training], sizes)
    mean, scale = x.mean(0), 1 / (x.std(0) + 1e-6)
    weights = np.repeat(weights_of(training), sizes)
    model: Any = LogisticRegression(C=strength, max_iter=400)
    model.fit((x - mean) * scale, y, sample_weight=weights)
    order = [list(model.classes_).index(label) for label in range(len(LABELS))]
    arrays = (mean, scale, model.coef_[order], model.intercept_[order])
    return Head(LABELS, layer, *(np.ascontiguousarray(array, dtype=np.float32) for array in arrays))


def weights_of(clips: Sequence[Heard]) -> np.ndarray:
    """(clips,), 1 in the mean."""
    keys = [clip.genre for clip in clips]
    count = {key: keys.count(key) for key in set(keys)}
    return np.array([len(keys) / (len(count) * count[key]) for key in keys])


def label_of(clip: Heard) -> int:
    return LABELS.index(NONE if clip.genre == OTHER else clip.genre)


def shares(head: Head, clip: Heard) -> np.ndarray:
    """(labels,): as the tab shows them, the mean of the windows' softmax."""
    logits = head(clip.features)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).mean(0)


def answers(head: Head, clips: Sequence[Heard]) -> np.ndarray:
    """(clips,): numbers of the labels that win."""
    return np.array([int(shares(head, clip).argmax()) for clip in clips], dtype=int)


def balanced(head: Head, clips: Sequence[Heard]) -> float:
    """Mean over each pair of genre and source of the share of its clips that is right."""
    right = answers(head, clips) == np.array([label_of(clip) for clip in clips])
    kinds = [(clip.genre, clip.source) for clip in clips]
    return float(np.mean([right[[k == kind for k in kinds]].mean() for kind in sorted(set(kinds))]))


def tempered(head: Head, clips: Sequence[Heard]) -> Head:
    """Divides the logits so that shares are as sure as they are right (Guo et al. 2017, by the log-likelihood)."""

    def loss(temperature: float) -> float:
        cooler = replace(head, weight=head.weight / temperature, bias=head.bias / temperature)
        likelihoods = [np.log(shares(cooler, clip)[label_of(clip)] + 1e-9) for clip in clips]
        return -float(np.mean(each * likelihoods))

    each = weights_of(clips)
    best = np.float32(min(TEMPERATURES, key=loss))
    return replace(head, weight=head.weight / best, bias=head.bias / best)


def thresholded(head: Head, others: Sequence[Heard], false_positives: float) -> Head:
    """Raises the bias of "none of these" until at most this share of each source's music gets the name of a genre."""
    sources = sorted({clip.source for clip in others})
    for bias in BIASES:
        raised = head.bias.copy()
        raised[LABELS.index(NONE)] += np.float32(bias)
        careful = replace(head, bias=raised)
        named = answers(careful, others) != LABELS.index(NONE)
        if np.mean([named[[clip.source == source for clip in others]].mean() for source in sources]) <= false_positives:
            return careful
    raise ValueError("no threshold keeps music of other kinds out")
