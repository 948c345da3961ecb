"""Bad input through the running suite: a clear error that names the field, nothing of our insides, and no harm done."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from shared.suite import Suite

pytestmark = pytest.mark.slow

TEXT_FIELDS = {
    "zero_shot": "text",
    "few_shot": "text",
    "sentiment": "text",
    "summarize": "text",
    "translate": "text",
    "generate": "prompt",
    "chat": "message",
    "next_token": "prompt",
}
LANGUAGE_MODEL = "SmolLM2-135M-Instruct"
INSIDES = ("Traceback", 'File "', ".py", "<class", " object at 0x", "pydantic", "/site-packages", "Error(")


@dataclass(frozen=True)
class Answer:
    """How a request over plain HTTP ended."""

    status: int
    event: str
    """`complete`, `error`, or empty where the request was refused before it was queued."""
    said: Any
    """The outputs, or the error's message."""


def ask(suite: Suite, name: str, body: str | dict[str, Any], *, positional: bool = False) -> Answer:
    """`body` as text is sent as it is, for what no JSON library writes."""
    version = "" if positional else "v2/"
    content = body if isinstance(body, str) else json.dumps(body)
    asked = httpx.post(
        f"{suite.url}gradio_api/call/{version}{name}",
        content=content,
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    if asked.status_code != 200:
        return Answer(asked.status_code, "", asked.text)
    events = httpx.get(f"{suite.url}gradio_api/call/{name}/{asked.json()['event_id']}", timeout=120).text
    kind, data = events.strip().split("\n\n")[-1].split("\n")
    said = json.loads(data.removeprefix("data: "))
    event = kind.removeprefix("event: ")
    return Answer(200, event, said["error"] if event == "error" else said)


def refused(answer: Answer, *words: str) -> None:
    """Asserts a clear error: a message of ours, or a 4xx, that has these words and nothing of our insides."""
    assert answer.event == "error" or 400 <= answer.status < 500, answer
    assert isinstance(answer.said, str), f"an error without a message: {answer}"
    for word in words:
        assert word in answer.said
    for inside in INSIDES:
        assert inside not in answer.said
    assert "our fault" not in answer.said
    assert len(answer.said) < 1000


@pytest.fixture(autouse=True)
def quiet_log(suite: Suite, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No bad input may leave a traceback in the server's log."""
    server = logging.getLogger("uvicorn.error")  # does not hand its records on to the root logger
    server.addHandler(caplog.handler)
    yield
    server.removeHandler(caplog.handler)
    streams = capsys.readouterr()
    assert "Traceback" not in streams.err + streams.out
    failures = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert failures == []


# -- text ----------------------------------------------------------------------------------------------

BAD_TEXTS = {
    "empty": ('""', "is empty"),
    "blank": (r'" \n\t \u00a0 "', "is empty"),
    "one megabyte": (json.dumps("x" * 2**20), "at most 60,000"),
    "null byte": (r'"a\u0000b"', "U+0000"),
    "escape": (r'"\u001b[31mred"', "U+001B"),
    "lone surrogate": (r'"half \ud800 pair"', "surrogate"),
    "number": ("12", "string"),
    "null": ("null", "string"),
    "list": ('["a"]', "string"),
    "object": ('{"a": 1}', "string"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
@pytest.mark.parametrize("name", TEXT_FIELDS)
def test_bad_text(suite: Suite, name: str, case: str) -> None:
    literal, word = BAD_TEXTS[case]
    refused(ask(suite, name, f'{{"{TEXT_FIELDS[name]}": {literal}}}'), f"{TEXT_FIELDS[name]}: ", word)


@pytest.mark.parametrize("name", TEXT_FIELDS)
def test_the_next_request_is_fine(suite: Suite, name: str) -> None:
    field = TEXT_FIELDS[name]
    refused(ask(suite, name, {field: ""}), field)
    short = {"max_new_tokens": 2} if name in ("generate", "chat") else {}
    answer = ask(suite, name, {field: "Good morning.", **short})
    assert answer.event == "complete", answer


@pytest.mark.parametrize("name", ["few_shot", "sentiment", "generate", "next_token", "chat"])
def test_text_longer_than_the_context_window(suite: Suite, name: str) -> None:
    answer = ask(suite, name, {TEXT_FIELDS[name]: "far too " * 7_400})
    refused(answer, f"{TEXT_FIELDS[name]}: ", "8,192" if name != "chat" else "tokens", "shorten")


def test_zero_shot_by_likelihood_refuses_what_does_not_fit(suite: Suite) -> None:
    refused(ask(suite, "zero_shot", {"text": "far too " * 7_400, "model": LANGUAGE_MODEL}), "text: ", "8,192")


# -- labels --------------------------------------------------------------------------------------------

BAD_LABELS = {
    "empty": ("", "is empty"),
    "separators alone": (" ,, \n , ", "two different labels"),
    "one": ("sports", "two different labels"),
    "repeated": ("sports, health, sports", "'sports' more than once"),
    "200": (", ".join(f"label {number}" for number in range(200)), "at most 50"),
    "2,000 characters": ("sports, " + "x" * 2_000, "2,000 characters"),
    "control character": ("sports, he\x07alth", "U+0007"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
@pytest.mark.parametrize("name", ["zero_shot", "few_shot"])
def test_bad_labels(suite: Suite, name: str, case: str) -> None:
    labels, word = BAD_LABELS[case]
    refused(ask(suite, name, {"text": "A good match.", "candidate_labels": labels}), "candidate_labels: ", word)


def test_labels_with_html_and_line_ends_are_plain_text(suite: Suite) -> None:
    labels = "<b>bold</b>\r\n<script>alert(1)</script>\n\n  sports  "
    answer = ask(suite, "zero_shot", {"text": "A good match.", "candidate_labels": labels})
    assert answer.event == "complete"
    names = {row["label"] for row in answer.said[0]["confidences"]}
    assert names == {"<b>bold</b>", "<script>alert(1)</script>", "sports"}


def test_fifty_labels_are_accepted(suite: Suite) -> None:
    labels = ", ".join(f"label {number}" for number in range(50))
    answer = ask(suite, "zero_shot", {"text": "A good match.", "candidate_labels": labels})
    assert len(answer.said[0]["confidences"]) == 50


# -- parameters ----------------------------------------------------------------------------------------

NAN, INFINITY = "NaN", "Infinity"

BAD_VALUES = [
    ("zero_shot", "hypothesis_template", '"no gap"', "{}"),
    ("zero_shot", "hypothesis_template", '"{} and {}"', "once"),
    ("zero_shot", "hypothesis_template", '"' + "x" * 400 + '{}"', "300"),
    ("zero_shot", "multi_label", '"perhaps"', "boolean"),
    ("zero_shot", "candidate_labels", '["a", "b"]', "string"),
    ("few_shot", "instruction", '"' + "x" * 1_001 + '"', "1000"),
    ("few_shot", "examples", '"text, label"', "tuple"),
    ("few_shot", "examples", '[["only one"]]', "a row of text and label"),
    ("summarize", "examples", '[["only one"]]', "a row of text and summary"),
    ("few_shot", "examples", '[["a text", ""]]', "empty"),
    ("few_shot", "examples", '[{"text": "a", "label": "positive", "weight": 2}]', "weight"),
    ("few_shot", "examples", json.dumps([["a text", "positive"]] * 65), "64"),
    ("summarize", "style", '"poem"', "dialogue"),
    ("summarize", "max_new_tokens", "7", "greater than or equal to 8"),
    ("summarize", "max_new_tokens", "513", "less than or equal to 512"),
    ("summarize", "num_beams", "9", "8"),
    ("summarize", "num_beams", "2", "beams"),
    ("translate", "num_beams", "-1", "0"),
    ("translate", "num_beams", "1.5", "integer"),
    ("translate", "num_beams", '"many"', "integer"),
    ("translate", "num_beams", NAN, "finite"),
    ("translate", "src_lang", '"xx"', "en→pt"),
    ("translate", "tgt_lang", '"tlh"', "en→pt"),
    ("translate", "src_lang", '""', "en→pt"),
    ("translate", "src_lang", "null", "string"),
    ("translate", "tgt_lang", '"en"', "src_lang"),
    ("generate", "max_new_tokens", "0", "1"),
    ("generate", "max_new_tokens", "100000", "1024"),
    ("generate", "max_new_tokens", "1e400", "finite"),
    ("generate", "do_sample", "2", "boolean"),
    ("generate", "temperature", "0", "0.05"),
    ("generate", "temperature", "-1", "0.05"),
    ("generate", "temperature", NAN, "finite"),
    ("generate", "temperature", INFINITY, "finite"),
    ("generate", "temperature", "-Infinity", "finite"),
    ("generate", "temperature", "null", "number"),
    ("generate", "top_k", "-1", "0"),
    ("generate", "top_p", "0", "0"),
    ("generate", "top_p", "1.01", "1"),
    ("generate", "repetition_penalty", "0", "0.5"),
    ("generate", "seed", "-1", "0"),
    ("generate", "seed", "99999999999999999999", "2147483647"),
    ("chat", "system_prompt", '"' + "x" * 8_001 + '"', "8000"),
    ("chat", "system_prompt", r'"\u0000"', "U+0000"),
    ("chat", "history", '"hello"', "tuple"),
    ("chat", "history", '[["hello", "hi"]]', "0"),
    ("chat", "history", "[5]", "0"),
    ("chat", "history", '[{"role": "robot", "content": "hi"}]', "assistant"),
    ("chat", "history", '[{"content": "hi"}]', "missing"),
    ("chat", "history", '[{"role": "user"}]', "missing"),
    ("chat", "history", '[{"role": "user", "content": 5}]', "string"),
    ("chat", "history", r'[{"role": "user", "content": "\udfff"}]', "surrogate"),
    ("chat", "history", json.dumps([{"role": "user", "content": "hi"}] * 501), "500"),
    ("next_token", "top_p", NAN, "finite"),
    ("next_token", "temperature", "4", "3"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameter", "literal", "word"), BAD_VALUES)
def test_bad_value(suite: Suite, name: str, parameter: str, literal: str, word: str) -> None:
    body = f'{{"{TEXT_FIELDS[name]}": "Good morning.", "{parameter}": {literal}}}'
    refused(ask(suite, name, body), parameter, word)


def test_an_example_whose_label_is_not_a_candidate(suite: Suite) -> None:
    body = {"text": "Fine.", "candidate_labels": "good, bad", "examples": [["Lovely.", "good"], ["Meh.", "so-so"]]}
    refused(ask(suite, "few_shot", body), "row 2", "candidate labels")


@pytest.mark.parametrize("name", TEXT_FIELDS)
@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("no-such-model", "no checkpoint of this name"),
        ("../../etc/passwd", "no checkpoint of this name"),
        ("someone/some-model", "no checkpoint of this name"),
        ("SmolLM2-135M-Instruct@other", ""),
        ("SmolLM2-135M-Instruct+adapter", "adapter"),
        ("x" * 301, "300"),
        ("<script>alert(1)</script>", ""),
    ],
)
def test_bad_model(suite: Suite, name: str, model: str, word: str) -> None:
    refused(ask(suite, name, {TEXT_FIELDS[name]: "Good morning.", "model": model}), "model: ", word)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("sentiment", "firefox-translations-en-pt"),
        ("translate", LANGUAGE_MODEL),
        ("translate", "firefox-translations-pt-en"),
        ("generate", "all-MiniLM-L6-v2"),
    ],
)
def test_a_model_that_cannot_do_it(suite: Suite, name: str, model: str) -> None:
    refused(ask(suite, name, {TEXT_FIELDS[name]: "Good morning.", "model": model}), f"model: {model} does not do")


# -- what Gradio would otherwise answer for us ---------------------------------------------------------------


@pytest.mark.parametrize("name", [*TEXT_FIELDS, "models"])
def test_an_unknown_field_is_refused_by_name(suite: Suite, name: str) -> None:
    body = {"wibble": 1, **({TEXT_FIELDS[name]: "Good morning."} if name in TEXT_FIELDS else {})}
    refused(ask(suite, name, body), "wibble")


@pytest.mark.parametrize("name", TEXT_FIELDS)
def test_a_missing_field_is_named(suite: Suite, name: str) -> None:
    refused(ask(suite, name, {}), TEXT_FIELDS[name])


@pytest.mark.parametrize("data", [[], ["Good morning."], ["Good morning.", "en", "pt", 1, "", "one", "too many"]])
def test_the_wrong_number_of_values(suite: Suite, data: list[Any]) -> None:
    refused(ask(suite, "translate", {"data": data}, positional=True), "5")


def test_an_unknown_endpoint(suite: Suite) -> None:
    assert 400 <= ask(suite, "no_such_endpoint", {"text": "Hi"}).status < 500


@pytest.mark.parametrize("body", ["not JSON", "[1]", '"text"', "", "{", '{"text": "\ufffe'])
def test_a_body_that_is_no_json_object(suite: Suite, body: str) -> None:
    answer = ask(suite, "translate", body)
    assert 400 <= answer.status < 500
    assert "Traceback" not in str(answer.said)


# -- files ---------------------------------------------------------------------------------------------


def batch(suite: Suite, content: bytes, task: Any = "translate", chosen: Any = None) -> Answer:
    uploaded = httpx.post(f"{suite.url}gradio_api/upload", files={"files": ("texts.csv", content)})
    assert uploaded.status_code == 200
    file = {"path": uploaded.json()[0], "meta": {"_type": "gradio.FileData"}}
    return ask(suite, "batch", {"data": [task, file, chosen if chosen is not None else {}]}, positional=True)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"\n\n \n", "empty"),
        (b"text\n", "no rows"),
        (b"Good morning.\nGood night.\n", "header"),
        (b"id,review\n1,Good morning.\n", "'text'"),
        ("text\ncafé\n".encode("latin-1"), "UTF-8"),
        (b"text\n" + b"Good morning.\n" * 2_001, "2,000 rows"),
        (b"text\n" + b"x" * 140_000 + b"\n", "CSV"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00", "UTF-8"),
        (b"text,id,text\na,1,b\n", "'text'"),
    ],
)
def test_bad_csv(suite: Suite, content: bytes, word: str) -> None:
    refused(batch(suite, content), "file: ", word)


def test_a_csv_of_twelve_megabytes(suite: Suite) -> None:
    refused(batch(suite, b"text\n" + b"x" * (12 * 2**20)), "file: ", "10,485,760 are accepted")


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"wibble": 1}, ("wibble",)),
        ({"num_beams": 99}, ("num_beams", "8")),
        ({"tgt_lang": "xx"}, ("tgt_lang", "en→pt")),
        ({"text": "instead of the rows"}, ("text",)),
        ({"column": 5}, ("5",)),
        ([1, 2], ("settings",)),
        ("{not JSON", ("settings", "JSON")),
    ],
)
def test_bad_batch_settings(suite: Suite, chosen: Any, words: tuple[str, ...]) -> None:
    refused(batch(suite, b"text\nGood morning.\n", chosen=chosen), *words)


@pytest.mark.parametrize("task", ["no_such_task", "generate", 5, None, "<script>"])
def test_a_batch_of_an_unknown_task(suite: Suite, task: Any) -> None:
    refused(batch(suite, b"text\nGood morning.\n", task=task), "task: ")


def test_a_batch_without_a_file(suite: Suite) -> None:
    refused(ask(suite, "batch", {"data": ["translate", None, {}]}, positional=True), "file: is missing")


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd"])
def test_a_batch_of_a_file_that_was_not_uploaded(suite: Suite, path: str) -> None:
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    answer = ask(suite, "batch", {"data": ["translate", file, {}]}, positional=True)
    refused(answer, "file")
    assert "root:" not in str(answer.said)


def test_a_bad_row_does_not_spoil_the_others(suite: Suite) -> None:
    answer = batch(suite, b"text\nGood morning.\n \nHe\x00llo\nGood morning.\n")
    assert answer.event == "complete"
    table = httpx.get(answer.said[0]["url"]).content.decode("utf-8-sig").splitlines()
    assert table[0] == "text,translation,error"
    assert len(table) == 5
    assert [line for line in table if "Bom dia." in line] == [table[1], table[4]]


# -- text of visitors in the page ----------------------------------------------------------------------------

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def page_event(suite: Suite, button: str, changed: dict[str, Any]) -> str:
    """Clicks a button as the page does, with these values of fields by their label; all that the page is sent."""
    config = httpx.get(f"{suite.url}config").json()
    components = {component["id"]: component["props"] for component in config["components"]}
    clicked = next(key for key, props in components.items() if props.get("elem_id") == button)
    event = next(d for d in config["dependencies"] if [clicked, "click"] in d["targets"])
    labels = [components[key].get("label") for key in event["inputs"]]
    assert set(changed) <= set(labels)
    data = [
        changed.get(label, components[key].get("value")) for key, label in zip(event["inputs"], labels, strict=True)
    ]
    session = uuid.uuid4().hex
    body = {"data": data, "fn_index": event["id"], "session_hash": session}
    httpx.post(f"{suite.url}gradio_api/queue/join", json=body).raise_for_status()
    received = []
    with httpx.stream("GET", f"{suite.url}gradio_api/queue/data?session_hash={session}", timeout=120) as stream:
        for line in stream.iter_lines():
            if '"close_stream"' in line:
                break
            received.append(line)
    assert '"success":true' in received[-1] + received[-2]
    return "\n".join(received)


@pytest.mark.parametrize(
    ("button", "changed"),
    [
        ("zero_shot-run", {"Text": SCRIPT, "Labels, separated by commas": f"{SCRIPT}, sports"}),
        ("sentiment-run", {"Text": SCRIPT}),
        ("summarize-run", {"Text": f"{SCRIPT} A first sentence. {SCRIPT} A second one."}),
        ("translate-run", {"Text": f"{SCRIPT} Good morning."}),
        ("next_token-run", {"Prompt": SCRIPT}),
        ("generate-run", {"Prompt": SCRIPT, "New tokens": 2}),
        ("chat-run", {"Message": SCRIPT, "System prompt": SCRIPT, "New tokens": 2}),
        ("translate-batch-run", {"One text a line": SCRIPT}),
    ],
)
def test_scripts_are_shown_as_text(suite: Suite, button: str, changed: dict[str, Any]) -> None:
    received = page_event(suite, button, changed)
    assert "&lt;" in received
    assert "<script>" not in received
    assert "<img" not in received


def test_an_error_in_the_page_names_the_field(suite: Suite) -> None:
    received = page_event(suite, "translate-run", {"Text": "   "})
    assert "is empty" in received
    assert "Traceback" not in received
