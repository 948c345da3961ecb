"""What is asked: one case for each endpoint, and for each way of answering it; the same texts for suite and peer.

No text is asked twice: each bears the number of its request, or begins at another place of an article. So neither a
stored answer nor a prompt that was read before can serve it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from benchmarks.load import Inputs
from benchmarks.quality import SMOLLM, Item, items
from benchmarks.quality_labels import TOPICS

SUMMARY_TOKENS = 32
CHAT_TOKENS = 32
NEW_TOKENS = 64
FEW = 4
OPENING_WORDS = 12
"""Of a prompt to continue."""
SAMPLED = {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.95}

Weight = Literal["light", "medium", "heavy"]


@dataclass(frozen=True)
class Case:
    """One row of the table for each number of clients."""

    title: str
    api_name: str
    inputs: Inputs
    space: str = ""
    """The Space that has the endpoint; empty for those every suite has."""
    peer: Inputs | None = None
    """Inputs of the naive peer's endpoint, where it has one; its name is `peer_name`."""
    peer_name: str = ""
    weight: Weight = "light"
    """How long a call takes the naive peer: a fraction of a second, about one, or several."""
    beside_noop: bool = False
    """Measured in turns with the no-op endpoints too."""
    writes: bool = False
    """Whether new tokens are its measure."""
    key: str = ""
    """Its name in the figures that the bars are computed from."""


def answer_of(result: Any) -> Any:
    """The label, or the text, whichever server answered: what the two must agree in."""
    first = result[0] if isinstance(result, (list, tuple)) else result
    if isinstance(first, dict) and "label" in first:
        return first["label"]
    return first.strip() if isinstance(first, str) else first


def new_tokens(result: Any) -> int:
    """Of an answer of the suite, whose RunInfo says so, or of the peer, whose last output is the number."""
    last = result[-1] if isinstance(result, (list, tuple)) else None
    if isinstance(last, dict):
        return int(last.get("new_tokens") or 0)
    return int(last) if isinstance(last, (int, float)) else 0


def topics(number: int) -> str:
    return f"{number}. {one('topics', 'text', number)}"


def reviews(number: int) -> str:
    return f"{number}. {one('sentiment', 'text', number)}"


def english(number: int) -> str:
    return f"{number}. {one('en_pt', 'en', number)}"


def articles(number: int) -> str:
    return f"{number}. {one('articles', 'text', number)}"


def openings(number: int) -> str:
    """A dozen words of an article, from another place in it each time round."""
    texts = texts_of("articles")
    words = texts[number % len(texts)]["text"].split()
    start = 7 * (number // len(texts)) % max(1, len(words) - OPENING_WORDS)
    return " ".join(words[start : start + OPENING_WORDS])


def one(name: str, field: str, number: int) -> str:
    found = texts_of(name)
    return found[number % len(found)][field]


@cache
def texts_of(name: str) -> list[Item]:
    return items(name, quick=False)


def cases() -> list[Case]:
    """Every endpoint for texts."""
    labels = {"candidate_labels": TOPICS}
    taught = [[item["text"], item["label"]] for item in texts_of("sentiment")[-FEW:]]
    opinions = {"candidate_labels": "positive, negative", "examples": taught}
    return [
        Case(
            "zero_shot, MiniLM",
            "/zero_shot",
            lambda number: {"text": topics(number), **labels},
            "classification",
            lambda number: {"text": topics(number), **labels},
            "/zero_shot",
            beside_noop=True,
            key="zero_shot",
        ),
        Case(
            "zero_shot, SmolLM2",
            "/zero_shot",
            lambda number: {"text": topics(number), "model": SMOLLM, **labels},
            "classification",
            lambda number: {"text": topics(number), **labels},
            "/zero_shot_lm",
            weight="medium",
        ),
        Case(
            f"few_shot, {FEW} examples",
            "/few_shot",
            lambda number: {"text": reviews(number), **opinions},
            "classification",
            lambda number: {"text": reviews(number), **opinions},
            "/few_shot",
            weight="medium",
            key="few_shot",
        ),
        Case(
            "sentiment",
            "/sentiment",
            lambda number: {"text": reviews(number)},
            "classification",
            lambda number: {"text": reviews(number)},
            "/sentiment",
            key="sentiment",
        ),
        Case(
            "answer_question",
            "/answer_question",
            lambda number: {"question": "What happened?", "text": articles(number)},
            "reading",
        ),
        Case("summarize, MiniLM picks sentences", "/summarize", lambda n: {"text": articles(n)}, "summarization"),
        Case(
            f"summarize, SmolLM2 writes {SUMMARY_TOKENS} tokens",
            "/summarize",
            lambda n: {"text": articles(n), "model": SMOLLM, "max_new_tokens": SUMMARY_TOKENS},
            "summarization",
            lambda n: {"text": articles(n), "max_new_tokens": SUMMARY_TOKENS},
            "/summarize",
            weight="heavy",
            writes=True,
        ),
        Case(
            "translate, one sentence",
            "/translate",
            lambda number: {"text": english(number)},
            "translation",
            lambda number: {"text": english(number)},
            "/translate",
            beside_noop=True,
            writes=True,
            key="translate",
        ),
        Case(
            f"generate, {NEW_TOKENS} tokens, greedy",
            "/generate",
            lambda n: {"prompt": openings(n), "max_new_tokens": NEW_TOKENS},
            "generation",
            lambda n: {"prompt": openings(n), "max_new_tokens": NEW_TOKENS, "do_sample": False, "seed": 0},
            "/generate",
            weight="heavy",
            writes=True,
            key="greedy",
        ),
        Case(
            f"generate, {NEW_TOKENS} tokens, sampled with seeds",
            "/generate",
            lambda n: {"prompt": openings(n), "max_new_tokens": NEW_TOKENS, "seed": n, **SAMPLED},
            "generation",
            lambda n: {"prompt": openings(n), "max_new_tokens": NEW_TOKENS, "do_sample": True, "seed": n},
            "/generate",
            weight="heavy",
            writes=True,
            key="sampled",
        ),
        Case(
            f"chat, {CHAT_TOKENS} tokens",
            "/chat",
            lambda n: {"message": topics(n), "max_new_tokens": CHAT_TOKENS},
            "generation",
            lambda n: {"message": topics(n), "max_new_tokens": CHAT_TOKENS},
            "/chat",
            weight="heavy",
            writes=True,
        ),
        Case("next_token", "/next_token", lambda number: {"prompt": openings(number)}, "generation"),
        Case("models", "/models", lambda number: {}),
    ]
