"""Genres of a recording, window by window, as a plain function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import Field

from audio_genre.picture import Picture
from shared.engines.protocols import AudioClassifier
from shared.errors import InvalidInput
from shared.events import Done, Event, Partial, Running
from shared.media.recordings import Recording, Window, windows
from shared.serving.context import Context
from shared.serving.lease import Lease
from shared.serving.requests import AudioFile, Model, Request

BATCH_WINDOWS = 4
"""Windows between two results so far; within them a Stop takes one step of the engine."""


class AudioGenre(Request):
    audio: AudioFile = Field(description="A recording: wav, flac, ogg, opus or mp3.")
    top_k: int = Field(5, ge=1, le=50, description="How many genres to show.")
    model: Model = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """One window. `scores` are 0 to 1 in the order of the labels; none where it is silent."""

    start: float
    end: float
    scores: np.ndarray | None


@dataclass(frozen=True)
class Genres:
    """The result so far."""

    labels: tuple[str, ...]
    multi_label: bool
    """Whether the scores are independent, or add up to 1."""
    top_k: int
    sound: str
    """Format, rate and channels of the file."""
    window_seconds: float
    moments: tuple[Moment, ...] = ()
    expected: int = 0
    """Number of windows, as far as the file states its length."""
    picture: Picture | None = field(default=None, compare=False)
    seconds: float = 0.0
    finished: bool = False

    @property
    def audible(self) -> list[Moment]:
        return [moment for moment in self.moments if moment.scores is not None]

    @property
    def scores(self) -> np.ndarray:
        """The mean over the windows that are not silent, each weighed by what it adds; shape (labels,)."""
        weighed = [(m.end - m.start, m.scores) for m in self.moments if m.scores is not None]
        if not weighed:
            return np.zeros(len(self.labels))
        weights = np.array([weight for weight, _ in weighed])
        return weights @ np.stack([scores for _, scores in weighed]) / weights.sum()

    def top(self, scores: np.ndarray) -> list[dict[str, Any]]:
        """The best `top_k`, best first, as `gr.Label` has them."""
        best = np.argsort(-scores, kind="stable")[: self.top_k]
        return [{"label": self.labels[i], "confidence": round(float(scores[i]), 6)} for i in best]

    def outputs(self) -> tuple[Any, ...]:
        best = self.top(self.scores) if self.audible else []
        timeline = [
            {
                "start": round(moment.start, 3),
                "end": round(moment.end, 3),
                "silent": moment.scores is None,
                "confidences": [] if moment.scores is None else self.top(moment.scores),
            }
            for moment in self.moments
        ]
        return {"label": best[0]["label"] if best else None, "confidences": best}, timeline


def audio_genre(request: AudioGenre, context: Context) -> Iterator[Event]:
    """Says which genres a recording sounds like, as a whole and window by window. Silence is skipped."""
    with (
        Recording(request.audio, context.settings.max_audio_seconds) as recording,
        (yield from context.borrow(request.model, "audio-classification")) as lease,
    ):
        yield from listen(request, recording, lease)


def listen(request: AudioGenre, recording: Recording, lease: Lease) -> Iterator[Event]:
    """Decodes and classifies a few windows at a time: a long recording needs no more memory than a short one."""
    engine = lease.audio_classifier()
    checkpoint = lease.checkpoint
    stream = windows(
        recording.mono(engine.sampling_rate), engine.sampling_rate, checkpoint.window_seconds, checkpoint.hop_seconds
    )
    picture = Picture(engine.sampling_rate)
    result = Genres(
        engine.labels,
        engine.multi_label,
        request.top_k,
        recording.description,
        checkpoint.window_seconds,
        expected=max(1, math.ceil(recording.expected_seconds / checkpoint.hop_seconds)),
    )
    yield Running("listening", 0, result.expected)

    def decode() -> list[Window]:
        some = [window for _, window in zip(range(BATCH_WINDOWS), stream, strict=False)]
        for window in some:
            picture.add(window)
        return some

    while some := lease.compute(decode):
        audible = [window for window in some if not window.silent]
        rows = iter(probabilities(engine, engine.logits([window.samples for window in audible], lease.compute)))
        # Windows overlap: a moment is the part of its window that no earlier window covers.
        ends = [result.moments[-1].end if result.moments else 0.0, *(window.end for window in some)]
        new = [
            Moment(max(window.start, before), window.end, None if window.silent else next(rows))
            for window, before in zip(some, ends, strict=False)
        ]
        moments = (*result.moments, *new)
        result = replace(result, moments=moments, expected=max(result.expected, len(moments)))
        yield Partial(result)
    if not result.audible:
        raise InvalidInput("is silent from beginning to end: there is nothing to hear in it", field="audio")
    result = replace(result, expected=len(result.moments), picture=picture, seconds=recording.seconds, finished=True)
    yield Done(result, lease.run_info(warning=" ".join(recording.warnings)))


def probabilities(engine: AudioClassifier, logits: np.ndarray) -> np.ndarray:
    """Scores of 0 to 1, shape as the logits': a sigmoid for each label where they are independent, else a softmax."""
    if engine.multi_label:
        return 1 / (1 + np.exp(-logits))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return shares / shares.sum(axis=1, keepdims=True)
