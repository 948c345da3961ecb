"""The requests of zero-shot, few-shot and sentiment classification."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from shared.serving.requests import AnyText, CandidateLabels, Deterministic, Model, Text, labels, row_of

DESCRIPTION = "This text is about {}."

MOST_EXAMPLE_TEXT = 120_000
"""Characters of all examples together; no context window here holds half as many."""


def one_placeholder(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError("must hold {} exactly once: the place where a label goes")
    return template


class ZeroShot(Deterministic):
    text: Text
    candidate_labels: CandidateLabels = "sports, business, technology, politics, health"
    hypothesis_template: Annotated[
        AnyText,
        Field(max_length=300, description="Sentence that each label is put into, at {}."),
        AfterValidator(one_placeholder),
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
