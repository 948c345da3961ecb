"""Zero-shot and few-shot classification and sentiment, as plain functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from classification.likelihood import LikelihoodScorer
from classification.requests import FewShot, Sentiment, ZeroShot
from classification.scoring import EntailmentScorer, OwnLabelsScorer, Score, Scorer, SimilarityScorer
from shared.events import Done, Event
from shared.serving.context import Context
from shared.serving.lease import Lease


class Classification:
    """Labels with their probabilities, the likeliest first."""

    def __init__(self, score: Score) -> None:
        self.prompt = score.prompt
        self.method = score.method
        self.confidences = ranked(score.labels, score.probabilities)
        self.raw = ranked(score.labels, score.raw)
        self.window_share = score.input_tokens / score.context_window if score.context_window else None

    @property
    def label(self) -> str:
        return self.confidences[0]["label"]

    def outputs(self) -> tuple[Any, ...]:
        details = {
            "method": self.method,
            "raw": self.raw,
            "prompt": self.prompt,
            "context_window_share": self.window_share,
        }
        return ({"label": self.label, "confidences": self.confidences, "details": details},)

    def row(self) -> dict[str, Any]:
        return {"label": self.label, "confidence": self.confidences[0]["confidence"]}


class PromptedClassification(Classification):
    """A classification whose exact prompt is part of the answer."""

    def outputs(self) -> tuple[Any, ...]:
        return (*super().outputs(), self.prompt)


def ranked(names: Sequence[str], probabilities: np.ndarray) -> list[dict[str, Any]]:
    pairs = sorted(zip(names, map(float, probabilities), strict=True), key=lambda pair: -pair[1])
    return [{"label": name, "confidence": round(value, 6)} for name, value in pairs]


def scorer_of(lease: Lease) -> Scorer:
    """The scorer for the kind of the checkpoint. Raises `UnknownCheckpoint` for a kind that has none."""
    if lease.checkpoint.kind == "sentence-encoder":
        return SimilarityScorer(lease, lease.sentence_encoder())
    if lease.checkpoint.kind == "sequence-classifier":
        scorer = OwnLabelsScorer if lease.adapter else EntailmentScorer
        return scorer(lease, lease.sequence_classifier())
    return LikelihoodScorer(lease, lease.causal_lm())


# -- the three tasks -------------------------------------------------------------------------------


def zero_shot(request: ZeroShot, context: Context) -> Iterator[Event]:
    """Sorts a text into labels of your own, without any example."""
    with (yield from context.borrow(request.model, "zero-shot-classification")) as lease:
        (result,) = zero_shot_rows([request], lease)
        scorer = scorer_of(lease)
        warning = scorer.truncation(request.text, request.hypothesis_template)
        yield Done(result, lease.run_info(input_tokens=scorer.count_tokens(request.text), warning=warning))


def few_shot(request: FewShot, context: Context) -> Iterator[Event]:
    """Sorts a text into labels after seeing a few examples, or none."""
    with (yield from context.borrow(request.model, "few-shot-classification")) as lease:
        (result,) = few_shot_rows([request], lease)
        tokens = scorer_of(lease).count_tokens(result.prompt or request.text)
        yield Done(result, lease.run_info(input_tokens=tokens))


def sentiment(request: Sentiment, context: Context) -> Iterator[Event]:
    """Says whether a text is positive or negative."""
    with (yield from context.borrow(request.model, "text-classification")) as lease:
        (result,) = sentiment_rows([request], lease)
        scorer = scorer_of(lease)
        tokens = scorer.count_tokens(result.prompt or request.text)
        yield Done(result, lease.run_info(input_tokens=tokens, warning=scorer.truncation(request.text, "")))


# -- many texts with the same settings, in as few forward passes as possible -------------------------


def zero_shot_rows(requests: Sequence[ZeroShot], lease: Lease) -> list[Classification]:
    return [Classification(score) for score in scorer_of(lease).zero_shot(requests)]


def few_shot_rows(requests: Sequence[FewShot], lease: Lease) -> list[PromptedClassification]:
    return [PromptedClassification(score) for score in scorer_of(lease).few_shot(requests)]


def sentiment_rows(requests: Sequence[Sentiment], lease: Lease) -> list[Classification]:
    return [Classification(score) for score in scorer_of(lease).sentiment(requests)]
