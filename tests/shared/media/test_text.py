"""Texts are taken apart without losing a character, and their language is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.media.languages import language_name
from shared.media.text import Span, detect_language, lines, sentences
from translation.task import Aligned, rebuilt

PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "en_pt.jsonl").read_text(encoding="utf-8").splitlines()
]

PIECES = st.sampled_from(
    [
        "Hello there.",
        "Dr. Smith",
        " is 3.5 m tall",
        "?",
        "!",
        "...",
        "…",
        ". ",
        " ",
        "\n",
        "\n\n",
        "\t",
        '"Quoted."',
        "(See p. 4.)",
        "e.g.",
        "J. K. Rowling",
        "A sério?",
        "\u00a0",
        "\u200b",
        "🙂",
        "。",
        "日本語。",
        "«",
        "»",
        "\u2028",
        "[1]",
    ]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=20).map("".join))


def taken(text: str, language: str = "en") -> list[str]:
    return [span.text for span in sentences(text, language)]


def check_spans(text: str, spans: list[Span]) -> None:
    place = 0
    for span in spans:
        assert span.text == text[span.start : span.end] == span.text.strip() != ""
        assert "\n" not in span.text
        assert text[place : span.start].strip() == "", "text between two spans was lost"
        place = span.end
    assert text[place:].strip() == ""


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, language=st.sampled_from(["en", "pt"]))
def test_sentences_are_pieces_of_the_text_and_all_of_it(text: str, language: str) -> None:
    check_spans(text, sentences(text, language))


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_lines_are_pieces_of_the_text_and_all_of_it(text: str) -> None:
    found = lines(text)
    check_spans(text, found)
    assert len(found) == sum(bool(line.strip()) for line in text.split("\n"))


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_a_translation_keeps_all_blanks_and_line_ends_of_its_source(text: str) -> None:
    """With sentences that translate to themselves the text comes back as it was."""
    assert rebuilt(text, [Aligned(span, span.text, 0.0) for span in sentences(text)]) == text
    marked = rebuilt(text, [Aligned(span, "X", 0.0) for span in sentences(text)])
    assert marked.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Dr. Smith met Mrs. Jones. They spoke.", "en", ["Dr. Smith met Mrs. Jones.", "They spoke."]),
        ("It costs 3.50 francs. Cheap!", "en", ["It costs 3.50 francs.", "Cheap!"]),
        ("Is it? Yes! It is.", "en", ["Is it?", "Yes!", "It is."]),
        ("Bring fruit, e.g. apples. Thanks.", "en", ["Bring fruit, e.g. apples.", "Thanks."]),
        ("O Sr. Silva chegou. A Sra. Lima também.", "pt", ["O Sr. Silva chegou.", "A Sra. Lima também."]),
        ("no full stop\nsecond line", "en", ["no full stop", "second line"]),
        ("First.\n\n  Second one.  \n", "en", ["First.", "Second one."]),
        ("", "en", []),
        (" \n\t\n", "en", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, language: str, expected: list[str]) -> None:
    assert taken(text, language) == expected


def test_the_same_sentence_twice_is_two_places() -> None:
    assert [(s.start, s.end) for s in sentences("Go. Go. Go.")] == [(0, 3), (4, 7), (8, 11)]


def test_a_turn_of_a_dialogue_is_a_line() -> None:
    text = "Clara: Hi. It's me.\n\n  Ben: Oh no!  \n"
    assert [span.text for span in lines(text)] == ["Clara: Hi. It's me.", "Ben: Oh no!"]


@pytest.mark.parametrize("language", ["en", "pt"])
def test_nearly_every_sentence_is_told_to_be_in_its_language(language: str) -> None:
    found = [detect_language(pair[language]).language for pair in PAIRS]
    assert found.count(language) >= 0.95 * len(PAIRS)


def test_detection_is_sure_of_a_paragraph_and_not_of_a_word() -> None:
    paragraph = " ".join(pair["pt"] for pair in PAIRS[:5])
    assert detect_language(paragraph).language == "pt"
    assert detect_language(paragraph).probability > 0.99
    assert 0 < detect_language("ok").probability < 0.6


def test_languages_have_names_for_people() -> None:
    assert language_name("pt") == "Portuguese (pt)"
    assert language_name("xx") == "xx"
