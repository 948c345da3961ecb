"""No text from outside becomes markup, colours can be read, and numbers say what they are."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInput, SuiteError
from shared.events import Loading, Queued, RunInfo, Running
from shared.page import render, snippets


class Parsed(HTMLParser):
    """Tags, attributes and text as a browser would see them."""

    VOID = frozenset({"br"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], "a tag is left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.tags.append("declaration")

    def handle_pi(self, data: str) -> None:
        self.tags.append("instruction")

    def values(self, tag: str, name: str) -> list[str]:
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


NASTY = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "<script>alert(1)</script>",
                "<img src=x onerror=alert(1)>",
                "<",
                ">",
                "&",
                '"',
                "'",
                "&lt;",
                "</div>",
                "<!--",
                "-->",
                '" onmouseover="alert(1)',
                "<b",
                "]]>",
                "<?php",
                "<!DOCTYPE",
                "&#x3c;b&#x3e;",
                "`",
                "\n",
                "${1}",
                "</pre>",
            ]
        ),
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10),
    ),
    max_size=8,
).map("".join)

TAGS: dict[str, set[str]] = {
    "bar": {"div", "span", "i"},
    "tools": {"div", "button"},
    "problem": {"div", "b"},
    "run": {"div", "b", "br"},
    "table": {"div", "table", "thead", "tbody", "tr", "th", "td"},
    "snippet": {"div", "section", "h4", "button", "pre"},
}


@given(name=NASTY, share=st.floats(0, 1))
def test_a_label_stays_text(name: str, share: float) -> None:
    found = Parsed(render.bar(name, share))
    assert set(found.tags) == TAGS["bar"]
    assert found.values("span", "title") == [name]
    assert found.text == name + render.percent(share)


@given(names=st.lists(NASTY, min_size=13, max_size=16))
def test_a_dozen_bars_and_a_word_on_the_others(names: list[str]) -> None:
    found = Parsed(render.bars([{"label": name, "confidence": 0.5} for name in names]))
    assert set(found.tags) == {*TAGS["bar"], "p"}
    assert found.values("span", "title") == names[:12]
    assert f"and {len(names) - 12} less likely" in found.text


@given(text=NASTY, name=NASTY)
def test_copied_and_downloaded_text_is_the_text(text: str, name: str) -> None:
    found = Parsed(render.tools(text, name))
    assert set(found.tags) == TAGS["tools"]
    assert found.values("button", "data-text") == [text, text]
    assert found.values("button", "data-name") == [name]
    assert {attribute for _, attribute, _ in found.attributes} == {"class", "data-act", "data-text", "data-name"}


@given(text=NASTY)
def test_a_note_stays_text(text: str) -> None:
    found = Parsed(render.note(text))
    assert found.text == text
    assert found.tags == (["div"] if text else [])


@given(message=NASTY, field=NASTY)
def test_an_error_that_quotes_the_input_stays_text(message: str, field: str) -> None:
    found = Parsed(render.problem(InvalidInput(message, field=field)))
    assert set(found.tags) <= TAGS["problem"]
    assert found.tags[0] == "div"
    shown = found.text.removeprefix(field.replace("_", " ") + " ") if field else found.text
    assert shown.rstrip(".").upper() == message.rstrip(".").upper()  # its first letter is a capital


@given(checkpoint=NASTY, revision=NASTY, engine=NASTY, limits=NASTY)
def test_run_info_stays_text(checkpoint: str, revision: str, engine: str, limits: str) -> None:
    run = RunInfo(checkpoint=checkpoint, revision=revision, engine=engine, limits=limits, input_tokens=1234)
    found = Parsed(render.run_line(run))
    assert set(found.tags) <= TAGS["run"] | {"span"}
    assert found.text.startswith(f"{checkpoint} @ {revision} · {engine}")
    assert "1,234 tokens in" in found.text
    assert found.text.endswith(limits)


@given(cells=st.lists(st.tuples(NASTY, NASTY), min_size=1, max_size=4), name=NASTY)
def test_a_table_stays_text(cells: list[tuple[str, str]], name: str) -> None:
    found = Parsed(render.table([name, "number"], cells, numbers=["number"]))
    assert set(found.tags) == TAGS["table"]
    assert found.text == name + "number" + "".join(a + b for a, b in cells)


@given(what=NASTY, checkpoint=NASTY)
def test_what_is_waited_for_stays_text(what: str, checkpoint: str) -> None:
    for event in (Loading(checkpoint, what, 5, 10), Running(what, 1, 3)):
        found = Parsed(render.waiting(event))
        assert set(found.tags) == {"div", "i"}
        assert (what in found.text) or (what.capitalize() in found.text)


@given(text=NASTY)
def test_snippets_show_the_code_as_it_is(text: str) -> None:
    inputs = {"text": text, "multi_label": True}
    found = Parsed(snippets.all_html("http://127.0.0.1:7860", "zero_shot", inputs))
    assert set(found.tags) == TAGS["snippet"]
    for language in (snippets.python, snippets.javascript, snippets.curl):
        assert language("http://127.0.0.1:7860", "zero_shot", inputs) in found.text


# -- colours ---------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_wcag_has_it() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_text_on_a_colour_can_be_read() -> None:
    shares = [thousandths / 1000 for thousandths in range(1001)]
    found = {share: contrast(render.ink_on(share), render.colour(share)) for share in shares}
    assert {share: round(value, 2) for share, value in found.items() if value < 4.5} == {}


def test_colours_run_from_dark_to_light() -> None:
    found = [luminance(render.colour(i / 200)) for i in range(201)]
    assert found == sorted(found)
    assert render.colour(0) == render.CIVIDIS[0] == render.colour(-1)
    assert render.colour(1) == render.CIVIDIS[-1] == render.colour(2)


# -- numbers and words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, "0.0 %"),
        (1e-9, "< 0.1 %"),
        (0.001, "0.1 %"),
        (0.0123, "1.2 %"),
        (0.0999, "10.0 %"),
        (0.12, "12 %"),
        (0.9306, "93 %"),
        (0.99955, "> 99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_percent(share: float, expected: str) -> None:
    assert render.percent(share) == expected


@given(share=st.floats(0, 1))
def test_only_certainty_is_shown_as_a_hundred_percent(share: float) -> None:
    if render.percent(share) == "100 %":
        assert share > 0.9999999


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Queued(1), "Next in the queue…"),
        (Queued(7), "In the queue: number 7…"),
        (Loading("tiny", "reading weights", 0, 90_000_000), "Loading tiny: reading weights, 90 MB…"),
        (Loading("tiny", "checking", 45_000_000, 90_000_000), "Loading tiny: checking, 45 of 90 MB…"),
        (Loading("tiny", "waiting for memory", 0, 0), "Loading tiny: waiting for memory…"),
        (Running("translating", 16, 40), "Translating, 16 of 40…"),
        (Running(), "Computing…"),
    ],
)
def test_waiting_is_said_in_words(event: Any, expected: str) -> None:
    assert Parsed(render.waiting(event)).text == expected


def test_a_bar_shows_how_far_it_is() -> None:
    assert "width:50%" in render.waiting(Loading("tiny", "checking", 45, 90))
    assert "unknown" in render.waiting(Loading("tiny", "checking", 0, 0))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidInput("is empty", field="candidate_labels"), "candidate labels is empty."),
        (SuiteError("something failed. Please try again"), "Something failed. Please try again."),
        (SuiteError("it ends with a stop."), "It ends with a stop."),
        (SuiteError("no, it is not"), "No, it is not."),
        (SuiteError("user/x cannot be used here"), "user/x cannot be used here."),
        (SuiteError("gpt2 is not there"), "gpt2 is not there."),
        (SuiteError("'x' is not an id"), "'x' is not an id."),
        (SuiteError("config.json is damaged"), "config.json is damaged."),
        (SuiteError(""), "."),
    ],
)
def test_errors_are_sentences(error: SuiteError, expected: str) -> None:
    assert Parsed(render.problem(error)).text == expected


def test_run_info_says_only_what_is_worth_saying() -> None:
    quiet = RunInfo(checkpoint="tiny", revision="1", engine="fake", seconds_running=0.5)
    assert Parsed(render.run_line(quiet)).text == "tiny @ 1 · fake · 0.50 s computing"
    busy = quiet.model_copy(
        update={
            "seconds_queued": 2.0,
            "seconds_loading": 3.0,
            "new_tokens": 1500,
            "tokens_per_second": 30.4,
            "cached": True,
        }
    )
    found = Parsed(render.run_line(busy)).text
    for part in ("stored answer", "2.0 s queued", "3.0 s loading", "1,500 new", "30 tokens/s"):
        assert part in found
    assert Parsed(render.run_line(None)).text == ""
