"""Extractive question answering and masked words, as plain functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from shared.engines.compute import Compute
from shared.engines.protocols import AnswerSpan, FilledToken, SentenceEncoder
from shared.errors import InvalidInput
from shared.events import Done, Event
from shared.media.text import sentences
from shared.serving.context import Context
from shared.serving.requests import Deterministic, Model, Text

SIMILARITY_SCALE = 20.0
"""Softmax scale from cosine similarity to a share for each sentence: sentence-transformers' own training scale
(`MultipleNegativesRankingLoss`), so that a close call looks like one."""

SPAN = "extractive: the span whose start and end the model finds likeliest"
SENTENCE = "by similarity: the sentence whose meaning is closest to the question's"


class AnswerQuestion(Deterministic):
    question: Text = Field(max_length=1000)
    text: Text = Field(
        "The bridge was opened in 1932 after nine years of work. It carries trains, cars and walkers.",
        description="Where the answer is looked for.",
    )
    top_k: int = Field(3, ge=1, le=10, description="How many answers to show.")
    model: Model = ""


class FillMask(Deterministic):
    text: Text = Field(description="A text with [MASK] in the place of a word, once or more.")
    top_k: int = Field(8, ge=1, le=50, description="How many words to show for each mask.")
    model: Model = ""


@dataclass
class Answers:
    """The likeliest places of an answer, likeliest first."""

    text: str
    answers: list[AnswerSpan]
    method: str

    def outputs(self) -> tuple[Any, ...]:
        rows = [{"answer": a.text, "start": a.start, "end": a.end, "score": round(a.score, 6)} for a in self.answers]
        return (rows,)


@dataclass
class Filled:
    """What may stand behind each mask, likeliest first."""

    text: str
    mask_token: str
    masks: list[list[FilledToken]] = field(default_factory=list)

    def outputs(self) -> tuple[Any, ...]:
        return ([[{"token": t.text, "id": t.id, "score": round(t.probability, 6)} for t in row] for row in self.masks],)


def answer_question(request: AnswerQuestion, context: Context) -> Iterator[Event]:
    """Finds the answer to a question in a text: some of its words, or its closest sentence."""
    with (yield from context.borrow(request.model, "question-answering")) as lease:
        if lease.checkpoint.kind == "sentence-encoder":
            engine = lease.sentence_encoder()
            result = Answers(request.text, closest_sentences(request, engine, lease.compute), SENTENCE)
        else:
            engine = lease.question_answerer()
            found = engine.answer(request.question, request.text, request.top_k, lease.compute)
            result = Answers(request.text, found, SPAN)
        tokens = sum(engine.count_tokens([request.question, request.text]))
        yield Done(result, lease.run_info(input_tokens=tokens))


def closest_sentences(request: AnswerQuestion, encoder: SentenceEncoder, compute: Compute) -> list[AnswerSpan]:
    """The sentences most similar to the question; scores are a softmax over all sentences of the text."""
    spans = sentences(request.text)
    vectors = encoder.encode([request.question, *(span.text for span in spans)], compute)
    similarities = SIMILARITY_SCALE * (vectors[1:] @ vectors[0])
    shares = np.exp(similarities - similarities.max())
    shares /= shares.sum()
    best = np.argsort(-shares, kind="stable")[: request.top_k]
    return [AnswerSpan(spans[i].start, spans[i].end, spans[i].text, float(shares[i])) for i in best]


def fill_mask(request: FillMask, context: Context) -> Iterator[Event]:
    """Says which words a masked language model expects in the place of [MASK]."""
    if "[MASK]" not in request.text and "<mask>" not in request.text:
        raise InvalidInput("has no [MASK]; put it in the place of the word to be guessed", field="text")
    with (yield from context.borrow(request.model, "fill-mask")) as lease:
        engine = lease.masked_lm()
        masks = engine.fill(request.text, request.top_k, lease.compute)
        tokens = sum(engine.count_tokens([request.text]))
        yield Done(Filled(request.text, engine.mask_token, masks), lease.run_info(input_tokens=tokens))
