"""Text in sentences and paragraphs, and which language it is in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

KNOWN_LANGUAGES = [
    "ar",
    "bn",
    "cs",
    "da",
    "de",
    "el",
    "en",
    "es",
    "fa",
    "fi",
    "fr",
    "he",
    "hi",
    "hu",
    "id",
    "it",
    "ja",
    "ko",
    "nl",
    "no",
    "pl",
    "pt",
    "ro",
    "ru",
    "sv",
    "th",
    "tr",
    "uk",
    "ur",
    "vi",
    "zh",
]
"""Widely written languages. With all 140 of the detector, short Portuguese is often taken for Galician."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text: `text == source[start:end]`."""

    start: int
    end: int
    text: str


def sentences(text: str, language: str = "en") -> list[Span]:
    """The sentences of a text, in order, without the blanks between them. A line end always ends a sentence."""
    from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue] - a compiled module

    found = []
    for line in lines(text):
        place = line.start
        for piece in segment(language, line.text):
            stripped = piece.strip()
            if stripped:
                start = text.index(stripped, place)
                place = start + len(stripped)
                found.append(Span(start, place, stripped))
    return found


def lines(text: str) -> list[Span]:
    """The lines that hold anything, without blanks around them."""
    return list(_lines(text))


def _lines(text: str) -> Iterator[Span]:
    start = 0
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped:
            begin = start + line.index(stripped)
            yield Span(begin, begin + len(stripped), stripped)
        start += len(line) + 1


@dataclass(frozen=True, slots=True)
class Detected:
    """ISO 639-1 code, and how sure the detector is of it among `KNOWN_LANGUAGES` (0 to 1)."""

    language: str
    probability: float


def detect_language(text: str) -> Detected:
    """Which language a text is in, by character n-grams (py3langid, after Lui & Baldwin 2012).

    Unsure below a few words.
    """
    detector, lock = _detector()
    with lock:
        language, probability = detector.classify(text[:5_000])
    return Detected(language, float(probability))


@cache
def _detector() -> tuple[Any, threading.Lock]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # reading its model takes half a second

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    detector.set_languages(KNOWN_LANGUAGES)
    return detector, threading.Lock()
