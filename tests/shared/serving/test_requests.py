"""Inputs are checked once, and the error says which one is wrong and how."""

from __future__ import annotations

import math
import unicodedata
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from classification.requests import FewShot, ZeroShot
from generation.task import Chat, Generate, NextToken
from shared.errors import InvalidInput
from shared.serving.requests import AnyText, CandidateLabels, Model, Request, Text, bounds, labels, readable, validate
from shared.settings import Settings
from summarization.task import Summarize
from translation.task import Translate

LIMITS = Settings(max_chars=1000, max_labels=50)


class Form(Request):
    text: Text = "some"
    note: AnyText = ""
    candidate_labels: CandidateLabels = "a, b"
    number: int = Field(1, ge=1, le=8, description="How many.")
    share: float = Field(0.5, gt=0.0, le=1.0)
    kind: Literal["this", "that"] = "this"
    model: Model = ""


def refusal(values: dict[str, Any], model: type[Request] = Form, settings: Settings = LIMITS) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        validate(model, values, settings)
    return caught.value


def outcome(values: dict[str, Any]) -> Form | InvalidInput:
    try:
        return validate(Form, values, LIMITS)
    except InvalidInput as error:
        return error


@pytest.mark.parametrize(
    ("values", "field", "said"),
    [
        ({"text": ""}, "text", "is empty"),
        ({"text": " \n\t \u2003"}, "text", "is empty"),
        ({"text": "x" * 1001}, "text", "1,001 characters long; at most 1,000"),
        ({"note": "x" * 1001}, "note", "SUITE_MAX_CHARS"),
        ({"text": "bell\a"}, "text", "U+0007 at character 5"),
        ({"text": "nul\0"}, "text", "U+0000"),
        ({"text": "\x9b"}, "text", "U+009B"),
        ({"text": "half \ud83d"}, "text", "U+D83D"),
        ({"text": "half \udc00"}, "text", "surrogate"),
        ({"text": 7}, "text", "should be a valid string"),
        ({"text": None}, "text", "string"),
        ({"text": ["a"]}, "text", "string"),
        ({"number": 0}, "number", "greater than or equal to 1"),
        ({"number": 9}, "number", "less than or equal to 8"),
        ({"number": 1.5}, "number", "integer"),
        ({"number": "many"}, "number", "integer"),
        ({"share": math.nan}, "share", "finite"),
        ({"share": math.inf}, "share", "finite"),
        ({"share": 0.0}, "share", "greater than 0"),
        ({"kind": "other"}, "kind", "'this' or 'that'"),
        ({"model": "x" * 301}, "model", "300"),
        ({"model": "a\0"}, "model", "U+0000"),
        ({"txet": "hello"}, "txet", "those are text, note"),
    ],
)
def test_a_wrong_input_is_named_with_what_is_wrong(values: dict[str, Any], field: str, said: str) -> None:
    error = refusal(values)
    assert error.field == field
    assert said in error.message
    assert str(error).startswith(f"{field}: ")


def test_a_missing_input_is_named() -> None:
    assert str(refusal({}, Generate)) == "prompt: is missing"


def test_the_error_does_not_repeat_the_text() -> None:
    """It may be long, and someone else may read the log."""
    for values in ({"text": "secret\0"}, {"text": "secret " * 200}, {"number": "secret"}, {"kind": "secret"}):
        assert "secret" not in str(refusal(values))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "is empty"),
        ("only one", "two different labels"),
        (",, ,\n,", "two different labels"),
        ("a, a", "names 'a' more than once"),
        ("a, b,  a ", "names 'a' more than once"),
        ("a\nb\nb", "names 'b' more than once"),
        (", ".join(f"l{i}" for i in range(51)), "51 labels; at most 50"),
        ("a, " + "b" * 201, "a label of 201 characters"),
        ("a, b\0", "U+0000"),
    ],
)
def test_labels_are_refused_with_the_reason(given: str, said: str) -> None:
    error = refusal({"candidate_labels": given})
    assert error.field == "candidate_labels"
    assert said in error.message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a, b", ["a", "b"]),
        ("urgent, not urgent,phone", ["urgent", "not urgent", "phone"]),
        ("one\ntwo\r\nthree", ["one", "two", "three"]),
        (" a ,, b ,\n", ["a", "b"]),
        ("<b>bold</b>, R&D", ["<b>bold</b>", "R&D"]),
        ("Car, car", ["Car", "car"]),
    ],
)
def test_labels_are_told_apart_by_commas_and_line_ends(given: str, expected: list[str]) -> None:
    assert labels(validate(Form, {"candidate_labels": given}, LIMITS).candidate_labels) == expected


def test_fifty_labels_of_two_hundred_characters_are_fine() -> None:
    given = "\n".join(f"{i:0200}" for i in range(50))
    settings = Settings()
    assert len(labels(validate(Form, {"candidate_labels": given}, settings).candidate_labels)) == 50


def test_the_limits_are_those_of_the_settings() -> None:
    strict = Settings(max_chars=5, max_labels=2)
    assert "at most 5" in refusal({"text": "abcdef"}, settings=strict).message
    assert "at most 2" in refusal({"candidate_labels": "a,b,c"}, settings=strict).message
    assert validate(Form, {"text": "abcde", "candidate_labels": "a,b"}, strict).text == "abcde"


def test_line_ends_are_unified_and_nothing_else_is_changed() -> None:
    given = "one\r\ntwo\rthree\x0bfour\x0cfive\x85six\u2028seven\u2029eight\tnine  <b>ü🙂</b> "
    expected = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\tnine  <b>ü🙂</b> "
    assert validate(Form, {"text": given}, LIMITS).text == expected


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)  # surrogates included


@given(text=ANY_TEXT)
def test_readable_gives_clean_text_or_a_value_error_whatever_comes(text: str) -> None:
    info: Any = SimpleNamespace(context={"settings": LIMITS})
    try:
        clean = readable(text, info)
    except ValueError:
        assert any(unicodedata.category(c) in ("Cc", "Cs") for c in text)
        return
    assert "\r" not in clean
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in clean)
    clean.encode("utf-8")
    assert readable(clean, info) == clean


@given(text=ANY_TEXT, labels_=ANY_TEXT)
def test_validation_raises_nothing_but_invalid_input(text: str, labels_: str) -> None:
    found = outcome({"text": text, "candidate_labels": labels_})
    if isinstance(found, InvalidInput):
        assert found.field in ("text", "candidate_labels")
    else:
        assert found.text.strip()
        assert 2 <= len(set(labels(found.candidate_labels))) <= 50


@given(values=st.dictionaries(st.sampled_from([*Form.model_fields, "extra"]), st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), ANY_TEXT, st.lists(st.integers(), max_size=2))))  # fmt: skip
def test_values_of_any_type_are_accepted_or_refused_by_name(values: dict[str, Any]) -> None:
    found = outcome(values)
    assert isinstance(found, Form) or found.field in values


def test_bounds_are_those_of_the_field() -> None:
    assert bounds(Form, "number") == {"value": 1, "info": "How many.", "minimum": 1, "maximum": 8, "step": 1}
    assert bounds(Generate, "temperature") == {
        "value": 0.7,
        "info": "Below 1 sharper, above 1 flatter. For sampling.",
        "minimum": 0.05,
        "maximum": 3.0,
        "step": 0.01,
    }


NUMBERS = [
    (model, name)
    for model in (Generate, Chat, NextToken, Summarize, Translate)
    for name, field in model.model_fields.items()
    if field.annotation in (int, float)
]


@pytest.mark.parametrize(("model", "name"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
def test_both_ends_of_a_slider_are_accepted(model: type[Request], name: str) -> None:
    first = next(iter(model.model_fields))
    found = bounds(model, name)
    assert "maximum" in found
    for end in {"minimum", "maximum"} & found.keys():  # a minimum above 0, but no least number, is the page's to choose
        validate(model, {first: "x", name: found[end]}, LIMITS)


def test_an_error_inside_a_list_says_where() -> None:
    error = refusal({"text": "x", "examples": [["good", "positive"], ["", "negative"]]}, FewShot)
    assert error.field == "examples"
    assert "1.text" in error.message
    assert (
        "a row of text and label, not of 3 values"
        in refusal({"text": "x", "examples": [["a", "b", "c"]]}, FewShot).message
    )
    bad_turn = {"message": "x", "history": [{"role": "robot", "content": "hi"}]}
    assert refusal(bad_turn, Chat).field == "history"


@pytest.mark.parametrize("template", ["no gap", "{} and {}", "{0}", ""])
def test_a_template_needs_its_gap(template: str) -> None:
    error = refusal({"text": "x", "hypothesis_template": template}, ZeroShot)
    assert error.field == "hypothesis_template"
    assert "{} exactly once" in error.message


def test_an_example_with_an_unknown_label_is_refused_by_name() -> None:
    error = refusal({"text": "x", "examples": [["good", "positive"], ["meh", "neutral"]]}, FewShot)
    assert error.field == "examples"
    assert "row 2" in error.message


def test_the_same_language_twice_is_refused_by_name() -> None:
    error = refusal({"text": "x", "src_lang": "PT ", "tgt_lang": "pt"}, Translate)
    assert error.field in ("src_lang", "tgt_lang")
    assert "'pt'" in error.message


def test_requests_cannot_be_changed_afterwards() -> None:
    form = validate(Form, {}, LIMITS)
    with pytest.raises(ValueError, match="frozen"):
        form.text = "other"  # pyright: ignore[reportAttributeAccessIssue]
