"""What the course publishes of its checkpoints, as calls of the suite's endpoints: inputs, and what must come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

Outputs = tuple[Any, ...]


@dataclass(frozen=True)
class Vector:
    """One published result. `check` raises `AssertionError` where the outputs (RunInfo last) differ from it."""

    name: str
    endpoint: str
    inputs: dict[str, Any]
    check: Callable[[Outputs], None] = field(repr=False)


def says(expected: str) -> Callable[[Outputs], None]:
    """The first output is this text, blanks around it left aside."""

    def check(outputs: Outputs) -> None:
        assert outputs[0].strip() == expected.strip()

    return check


def begins(expected: str) -> Callable[[Outputs], None]:
    def check(outputs: Outputs) -> None:
        assert outputs[0].strip().startswith(expected.strip())

    return check


def scores(expected: dict[str, float]) -> Callable[[Outputs], None]:
    """The labels have these scores, to 1e-3."""

    def check(outputs: Outputs) -> None:
        found = {row["label"]: row["confidence"] for row in outputs[0]["confidences"]}
        assert {label: found.get(label) for label in expected} == pytest.approx(expected, abs=1e-3)

    return check


GPT2, DIALOGPT = "openai-community/gpt2", "microsoft/DialoGPT-medium"
MNLI = "FacebookAI/roberta-large-mnli"
SST2 = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
T5, SMALL100 = "google-t5/t5-base", "alirezamsh/small100"

IPHONE = "I have a problem with my iphone that needs to be resolved asap!"
TEMPLATE = "This example is {}."
"""The default hypothesis template of transformers' zero-shot pipeline, which the course uses."""

RICE = "Could you tell me how to cook rice?"
COOKER = "I'm not sure, but I think you can use a rice cooker."


def translation(name: str, source: str, target: str, text: str, expected: str, model: str = SMALL100) -> Vector:
    inputs = {"text": text, "src_lang": source, "tgt_lang": target, "model": model}
    return Vector(name, "translate", inputs, says(expected))


VECTORS: tuple[Vector, ...] = (
    Vector(
        "GPT-2 knows the opening of a film",
        "generate",
        # The course stops at ten tokens in all; its prompt has these already, so one more is asked for.
        {"prompt": "Once upon a time, in a galaxy far, far", "max_new_tokens": 1, "model": GPT2},
        begins("away"),
    ),
    Vector(
        "greedy GPT-2 repeats itself",
        "generate",
        {"prompt": "I can't believe", "max_new_tokens": 46, "model": GPT2},
        begins("I'm doing this. I'm so sorry. I'm so sorry."),
    ),
    Vector(
        "an urgent message about a phone",
        "zero_shot",
        {
            "text": IPHONE,
            "candidate_labels": "urgent, not urgent, phone, tablet, computer",
            "hypothesis_template": TEMPLATE,
            "model": MNLI,
        },
        scores({"urgent": 0.55785, "phone": 0.39116, "tablet": 0.03346, "computer": 0.01478, "not urgent": 0.00275}),
    ),
    Vector(
        "the language of the same message",
        "zero_shot",
        {
            "text": IPHONE.replace("!", "!!"),
            "candidate_labels": "english, german",
            "hypothesis_template": TEMPLATE,
            "model": MNLI,
        },
        scores({"english": 0.76619, "german": 0.23381}),
    ),
    Vector(
        "a teacher's mood",
        "sentiment",
        {"text": "I love teaching machine learning!", "model": SST2},
        scores({"positive": 0.99955}),
    ),
    translation(
        "T5 and the chocolates",
        "en",
        "fr",
        "life is like  a box of chocolates",
        "La vie est comme une boîte de chocolats",
        T5,
    ),
    translation(
        "chocolates from Hindi",
        "hi",
        "fr",
        "जीवन एक चॉकलेट बॉक्स की तरह है।",
        "La vie est comme une boîte de chocolat.",
    ),
    translation("chocolates from Chinese", "zh", "en", "生活就像一盒巧克力。", "Life is like a box of chocolate."),
    translation(
        "chocolates from Hebrew", "he", "en", "החיים כמו קופסה של שוקולדים", "Life is like a box of chocolate."
    ),
    translation(
        "chocolates into Yiddish", "en", "yi", "life is like a box of chocolates", "איך בין געגאנגען צו צוקולד."
    ),
    Vector("how to cook rice", "chat", {"message": RICE, "max_new_tokens": 64, "model": DIALOGPT}, says(COOKER)),
    Vector(
        "and in a plain old pot",
        "chat",
        {
            "message": "Could I just use a plain old pot?",
            "history": [{"role": "user", "content": RICE}, {"role": "assistant", "content": COOKER}],
            "max_new_tokens": 64,
            "model": DIALOGPT,
        },
        says("I don't think so. I think you'd have to use a rice cooker."),
    ),
    Vector(
        "breakfast",
        "chat",
        {"message": "What should I have for breakfast?", "max_new_tokens": 64, "model": DIALOGPT},
        says("A sandwich"),
    ),
)


def checkpoints() -> Iterator[str]:
    """The repositories the vectors need, each once."""
    yield from dict.fromkeys(vector.inputs["model"] for vector in VECTORS)
