"""What is asked: one case for each endpoint, and for each way of answering it; the same texts for suite and peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.load import Inputs
from benchmarks.quality import SMOLLM, items
from benchmarks.quality_labels import TOPICS

SUMMARY_TOKENS = 48
NEW_TOKENS = 32
FEW = 4


@dataclass(frozen=True)
class Case:
    """One row of the table. The texts are none of the page's examples, whose answers the suite stores."""

    title: str
    api_name: str
    inputs: Inputs
    space: str = ""
    """The Space that has the endpoint; empty for those every suite has."""
    peer: Inputs | None = None
    """Inputs of the peer's endpoint, where it has one; its name is `peer_name`."""
    peer_name: str = ""
    heavy: bool = False
    """Takes about a second or more, so fewer of it are asked."""


def answer_of(result: Any) -> Any:
    """The label, or the text, whichever server answered: what the two must agree in."""
    first = result[0] if isinstance(result, (list, tuple)) else result
    if isinstance(first, dict) and "label" in first:
        return first["label"]
    return first.strip() if isinstance(first, str) else first


def cases() -> list[Case]:
    topics = [item["text"] for item in items("topics", quick=False)]
    reviews = [item["text"] for item in items("sentiment", quick=False)]
    articles = [item["text"] for item in items("articles", quick=False)]
    english = [item["en"] for item in items("en_pt", quick=False)]
    taught = [[item["text"], item["label"]] for item in items("topics", quick=False)[-FEW:]]

    def each(texts: list[str], name: str, **fixed: Any) -> Inputs:
        return lambda number: {name: texts[number % len(texts)], **fixed}

    openings: Callable[[int], str] = lambda number: " ".join(articles[number % len(articles)].split()[:12])  # noqa: E731 - an Inputs would not fit, and a def says no more
    topic_labels = {"candidate_labels": TOPICS}
    return [
        Case(
            "zero_shot, MiniLM",
            "/zero_shot",
            each(topics, "text", **topic_labels),
            "classification",
            each(topics, "text", **topic_labels),
            "/zero_shot",
        ),
        Case(
            "zero_shot, SmolLM2",
            "/zero_shot",
            each(topics, "text", model=SMOLLM, **topic_labels),
            "classification",
            each(topics, "text", **topic_labels),
            "/zero_shot_lm",
        ),
        Case(
            f"few_shot, {FEW} examples",
            "/few_shot",
            each(topics[:-FEW], "text", examples=taught, **topic_labels),
            "classification",
        ),
        Case("sentiment", "/sentiment", each(reviews, "text"), "classification", each(reviews, "text"), "/sentiment"),
        Case("summarize, MiniLM picks sentences", "/summarize", each(articles, "text"), "summarization"),
        Case(
            f"summarize, SmolLM2 writes {SUMMARY_TOKENS} tokens",
            "/summarize",
            each(articles, "text", model=SMOLLM, max_new_tokens=SUMMARY_TOKENS),
            "summarization",
            each(articles, "text", max_new_tokens=SUMMARY_TOKENS),
            "/summarize",
            heavy=True,
        ),
        Case("translate, one sentence", "/translate", each(english, "text"), "translation"),
        Case(
            f"generate, {NEW_TOKENS} tokens",
            "/generate",
            lambda number: {"prompt": openings(number), "max_new_tokens": NEW_TOKENS},
            "generation",
            lambda number: {"prompt": openings(number), "max_new_tokens": NEW_TOKENS},
            "/generate",
            heavy=True,
        ),
        Case(
            f"chat, {NEW_TOKENS} tokens",
            "/chat",
            lambda number: {"message": topics[number % len(topics)], "max_new_tokens": NEW_TOKENS},
            "generation",
            heavy=True,
        ),
        Case("next_token", "/next_token", lambda number: {"prompt": openings(number)}, "generation"),
        Case("models", "/models", lambda number: {}),
    ]
