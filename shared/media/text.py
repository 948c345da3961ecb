"""Text in sentences and paragraphs, and which language it is in."""

from __future__ import annotations

import mmap
import tempfile
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

    full = LanguageIdentifier.from_model_file(MODEL_FILE)
    full.set_languages(KNOWN_LANGUAGES)
    # One that has no other language's numbers, and whose table of 40 MB, of which a text touches little, is no memory.
    detector = LanguageIdentifier(
        full.nb_ptc,
        full.nb_pc,
        full.nb_classes,
        _in_a_file(full.tk_nextmove),
        full.tk_output,
        norm_probs=True,
        tk_row=full.tk_row,
    )
    return detector, threading.Lock()


def _in_a_file(numbers: Any) -> memoryview:
    """The numbers of an `array.array`, read from a file without a name as they are needed."""
    with tempfile.TemporaryFile() as file:
        numbers.tofile(file)
        file.flush()
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).cast(numbers.typecode)
