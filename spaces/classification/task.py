"""Zero-shot and few-shot classification and sentiment, as plain functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from classification.scoring import (
    CONTENT_FREE,
    Score,
    by_entailment,
    by_head,
    by_likelihood,
    by_own_labels,
    by_similarity,
    model_name,
)
from shared.errors import InvalidInput
from shared.events import Done, Event
from shared.serving.context import Context
from shared.serving.lease import Lease
from shared.serving.requests import AnyText, CandidateLabels, Deterministic, Model, Request, Text, labels, row_of

SENTIMENTS = ("positive", "negative")
DESCRIPTION = "This text is about {}."

SPECIAL_TOKENS = 4
"""Markers of beginning, end and separation around a text and its hypothesis, at most."""

MOST_EXAMPLE_TEXT = 120_000
"""Characters of all examples together; no context window here holds half as many."""


def one_gap(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError("must hold {} exactly once: the place where a label goes")
    return template


class ZeroShot(Deterministic):
    text: Text
    candidate_labels: CandidateLabels = "sports, business, technology, politics, health"
    hypothesis_template: Annotated[
        AnyText,
        Field(max_length=300, description="Sentence that each label is put into, at {}."),
        AfterValidator(one_gap),
    ] = DESCRIPTION
    multi_label: bool = Field(False, description="Judge each label by itself: none, one or several may be right.")
    model: Model = ""


class Example(BaseModel):
    """A text with its right label."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Text
    label: Text


class FewShot(Deterministic):
    text: Text
    candidate_labels: CandidateLabels = "positive, negative"
    examples: tuple[Annotated[Example, row_of("text", "label")], ...] = Field(
        (), max_length=64, description="Rows of text and label. None is zero-shot, one is one-shot."
    )
    instruction: AnyText = Field("Classify this text:", max_length=1000, description="First line of every block.")
    model: Model = ""

    @field_validator("examples")
    @classmethod
    def _known_labels(cls, value: tuple[Example, ...], info: ValidationInfo) -> tuple[Example, ...]:
        size = sum(len(example.text) for example in value)
        if size > MOST_EXAMPLE_TEXT:
            raise ValueError(f"hold {size:,} characters in all; at most {MOST_EXAMPLE_TEXT:,} are read")
        names = labels(info.data.get("candidate_labels", ""))
        for number, example in enumerate(value, 1):
            if names and example.label.strip() not in names:
                raise ValueError(f"row {number} has a label that is not among the candidate labels")
        return value


class Sentiment(Deterministic):
    text: Text
    model: Model = ""


class Classification:
    """Labels with their probabilities, the likeliest first."""

    def __init__(self, names: Sequence[str], score: Score, *, prompt: str = "", window: int = 0) -> None:
        self.prompt = prompt
        self.method = score.method
        self.confidences = ranked(names, score.probabilities)
        self.raw = ranked(names, score.raw)
        self.window_share = score.input_tokens / window if window else None

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


def ranked(names: Sequence[str], probabilities: Any) -> list[dict[str, Any]]:
    pairs = sorted(zip(names, map(float, probabilities), strict=True), key=lambda pair: -pair[1])
    return [{"label": name, "confidence": round(value, 6)} for name, value in pairs]


# -- the three tasks -------------------------------------------------------------------------------


def zero_shot(request: ZeroShot, context: Context) -> Iterator[Event]:
    """Sorts a text into labels of your own, without any example."""
    with (yield from context.borrow(request.model, "zero-shot-classification")) as lease:
        (result,) = zero_shot_rows([request], lease)
        warning = cut_short(request.text, request.hypothesis_template, lease)
        yield Done(result, lease.run_info(input_tokens=tokens_of([request.text], lease), warning=warning))


def few_shot(request: FewShot, context: Context) -> Iterator[Event]:
    """Sorts a text into labels after seeing a few examples, or none."""
    with (yield from context.borrow(request.model, "few-shot-classification")) as lease:
        (result,) = few_shot_rows([request], lease)
        yield Done(result, lease.run_info(input_tokens=tokens_of([result.prompt or request.text], lease)))


def sentiment(request: Sentiment, context: Context) -> Iterator[Event]:
    """Says whether a text is positive or negative."""
    with (yield from context.borrow(request.model, "text-classification")) as lease:
        (result,) = sentiment_rows([request], lease)
        warning = cut_short(request.text, "", lease)
        tokens = tokens_of([result.prompt or request.text], lease)
        yield Done(result, lease.run_info(input_tokens=tokens, warning=warning))


# -- many texts with the same settings, in as few forward passes as possible -------------------------


def zero_shot_rows(requests: Sequence[ZeroShot], lease: Lease) -> list[Classification]:
    first = requests[0]
    names = labels(first.candidate_labels)
    texts = [request.text for request in requests]
    before, after = first.hypothesis_template.split("{}")
    if lease.checkpoint.kind == "sequence-classifier" and lease.adapter:
        refuse_for_a_head(first, ("hypothesis_template", "multi_label"), lease)
        return [Classification(names, score) for score in by_own_labels(texts, names, lease)]
    if lease.checkpoint.kind == "sequence-classifier":
        hypotheses = [f"{before}{name}{after}" for name in names]
        found = by_entailment(texts, hypotheses, lease, multi_label=first.multi_label)
        return [Classification(names, score) for score in found]
    if lease.checkpoint.kind == "sentence-encoder":
        described = [[f"{before}{name}{after}"] for name in names]
        scores = by_similarity(texts, described, lease, multi_label=first.multi_label)
        return [Classification(names, score) for score in scores]
    if any(character.isalnum() for character in after):
        raise InvalidInput(
            f"has words after {{}}, and {lease.checkpoint.id} judges a label by what stands before it; "
            "put the label last",
            field="hypothesis_template",
        )
    answers = [spaced(name, before) for name in names]
    prompts = [f"Text: {text.strip()}\n{before.rstrip()}" for text in texts]
    blank = [f"Text: N/A\n{before.rstrip()}"]
    scores = by_likelihood(prompts, blank, answers, lease, multi_label=first.multi_label, calibrate=False)
    window = lease.engine.context_window
    return [Classification(names, s, prompt=p, window=window) for s, p in zip(scores, prompts, strict=True)]


def few_shot_rows(requests: Sequence[FewShot], lease: Lease) -> list[PromptedClassification]:
    first = requests[0]
    names = labels(first.candidate_labels)
    texts = [request.text for request in requests]
    if lease.checkpoint.kind == "sequence-classifier":
        refuse_for_a_head(first, ("instruction", "examples"), lease)
        return [PromptedClassification(names, score) for score in by_own_labels(texts, names, lease)]
    if lease.checkpoint.kind == "sentence-encoder":
        if first.instruction.strip() not in ("", FewShot.model_fields["instruction"].default):
            raise InvalidInput(
                f"{lease.checkpoint.id} compares meanings and follows no instruction; leave this empty or choose a "
                "language model",
                field="instruction",
            )
        # Nearest centroid of the examples and of the label's own description, which counts as one more of them:
        # with a handful of examples that is better than either alone (`make eval`).
        described = [
            [DESCRIPTION.format(name), *(e.text for e in first.examples if e.label.strip() == name)] for name in names
        ]
        scores = by_similarity(texts, described, lease)
        return [PromptedClassification(names, score) for score in scores]
    prompts = [few_shot_prompt(first, text) for text in texts]
    blank = [few_shot_prompt(first, nothing) for nothing in CONTENT_FREE]
    scores = by_likelihood(prompts, blank, [f" {name}" for name in names], lease)
    window = lease.engine.context_window
    return [PromptedClassification(names, s, prompt=p, window=window) for s, p in zip(scores, prompts, strict=True)]


def sentiment_rows(requests: Sequence[Sentiment], lease: Lease) -> list[Classification]:
    texts = [request.text for request in requests]
    if lease.checkpoint.kind == "sequence-classifier":
        # The checkpoint's own labels; SST-2's are POSITIVE and NEGATIVE.
        names = [label.lower() for label in lease.engine.labels]
        return [Classification(names, score) for score in by_head(texts, lease)]
    if lease.checkpoint.kind == "sentence-encoder":
        described = [[f"This review is {name}."] for name in SENTIMENTS]
        return [Classification(SENTIMENTS, score) for score in by_similarity(texts, described, lease)]
    prompts = [f"Review: {text.strip()}\nSentiment:" for text in texts]
    scores = by_likelihood(prompts, (), [f" {name}" for name in SENTIMENTS], lease, calibrate=False)
    window = lease.engine.context_window
    return [Classification(SENTIMENTS, s, prompt=p, window=window) for s, p in zip(scores, prompts, strict=True)]


def refuse_for_a_head(request: Request, fields: Sequence[str], lease: Lease) -> None:
    """Raises `InvalidInput` for what a classifier with labels of its own makes no use of."""
    for name in fields:
        value, default = getattr(request, name), type(request).model_fields[name].default
        if value != default and value not in ("", ()):
            raise InvalidInput(
                f"means nothing to {model_name(lease)}, which was trained on its labels and reads the text alone; "
                "leave this as it was, or choose another model",
                field=name,
            )


def few_shot_prompt(request: FewShot, text: str) -> str:
    """The blocks the course teaches: instruction, text, answer; a blank line between; the last answer left open."""
    instruction = f"{request.instruction.strip()}\n" if request.instruction.strip() else ""
    blocks = [f"{instruction}{example.text.strip()}\nLabel: {example.label.strip()}" for example in request.examples]
    return "\n\n".join([*blocks, f"{instruction}{text.strip()}\nLabel:"])


def spaced(name: str, before: str) -> str:
    """The label as it continues a template: the blank before it belongs to its first token."""
    return f" {name}" if not before or before != before.rstrip() else name


def cut_short(text: str, beside: str, lease: Lease) -> str:
    """A warning where a classifier with a fixed window reads only the beginning of the text."""
    if lease.checkpoint.kind != "sequence-classifier":
        return ""
    tokens, others = lease.engine.count_tokens([text, beside])
    room = lease.engine.max_tokens - others - SPECIAL_TOKENS
    return f"Only about the first {room:,} of the text's {tokens:,} tokens were read." if tokens > room else ""


def tokens_of(texts: Sequence[str], lease: Lease) -> int:
    if lease.checkpoint.kind in ("sentence-encoder", "sequence-classifier"):
        return sum(lease.engine.count_tokens(texts))
    return sum(len(lease.engine.tokenize(text)) for text in texts)
