"""`POST /stream/<endpoint>` through a running suite: what comes, what is refused, and what a lost connection ends."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from gradio_client import Client

from shared.settings import Settings
from shared.suite import Suite, serve
from shared.transport.event_stream import additions
from tests.test_api import check_run_info
from tests.test_cancel import PATIENCE, Steps, at_rest, eventually

Message = tuple[str, dict[str, Any]]


def events(suite: Suite, endpoint: str, **inputs: Any) -> list[Message]:
    with httpx.stream("POST", f"{suite.url}stream/{endpoint}", json=inputs, timeout=120) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(parsed(response.iter_lines()))


def parsed(lines: Iterator[str]) -> Iterator[Message]:
    kind = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def test_a_text_comes_in_pieces_and_whole_at_its_end(suite: Suite, client: Client) -> None:
    found = events(suite, "generate", prompt="Once upon a time", max_new_tokens=24)
    pieces = [data["completion"] for kind, data in found if kind == "delta"]
    kind, last = found[-1]
    assert kind == "done"
    check_run_info(last["run_info"])
    assert len(pieces) >= 2
    assert last["completion"].startswith("".join(pieces))
    assert last["completion"] == client.predict("Once upon a time", max_new_tokens=24, api_name="/generate")[0]
    assert {kind for kind, _ in found} <= {"queued", "loading", "running", "delta", "done"}
    assert all(earlier != later for earlier, later in pairwise(found)), "a heartbeat is no event"


def test_a_quick_answer_is_one_event(suite: Suite, client: Client) -> None:
    client.predict("Good morning.", api_name="/translate")  # the weights are in memory now
    [*waiting, (kind, data)] = events(suite, "translate", text="Good morning.")
    assert (kind, data["translation"]) == ("done", "Bom dia.")
    assert not any(kind == "delta" for kind, _ in waiting)


def test_models_answers_too(suite: Suite) -> None:
    ((kind, data),) = events(suite, "models")
    assert kind == "done"
    assert data["report"]["catalog"]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"text": None}, {"text": "a"}, {"text": "a"}),
        ({"text": "a"}, {"text": "ab"}, {"text": "b"}),
        ({"text": "a"}, {"text": "a"}, {}),
        ({"text": "ab"}, {"text": "a"}, None),
        ({"text": "a", "scores": None}, {"text": "ab", "scores": [1]}, None),
    ],
)
def test_only_what_was_added_is_sent(
    before: dict[str, Any], now: dict[str, Any], expected: dict[str, str] | None
) -> None:
    assert additions(before, now) == expected


# -- refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "inputs", "status", "field"),
    [
        ("translate", {"text": " "}, 422, "text"),
        ("translate", {}, 422, "text"),
        ("translate", {"text": "Hi", "num_beams": 99}, 422, "num_beams"),
        ("translate", {"text": "Hi", "speed": 1}, 422, "speed"),
        ("translate", {"text": "Hi", "\ud800": 1}, 422, ""),
        ("translate", {"text": "half \ud800"}, 422, "text"),
        ("translate", {"text": "Hi", "model": "no-such-model"}, 404, "model"),
        ("generate", {"prompt": "word " * 11_000}, 422, "prompt"),
        ("audio_genre", {"audio": "/etc/passwd"}, 422, "audio"),
        ("audio_genre", {"audio": {"path": "/etc/passwd"}}, 422, "audio"),
        ("no_such_endpoint", {}, 404, ""),
        ("batch", {}, 404, ""),
    ],
)
def test_bad_input_is_refused_with_a_status_and_the_field(
    suite: Suite, client: Client, endpoint: str, inputs: dict[str, Any], status: int, field: str
) -> None:
    if endpoint == "generate":
        client.predict("Hello", api_name="/next_token")  # or the weights would be read before the length is known
    response = httpx.post(f"{suite.url}stream/{endpoint}", content=json.dumps(inputs), headers=JSON, timeout=60)
    if response.status_code == 200:  # a busy machine: it was under way for half a second before it was refused
        *_, (kind, said) = parsed(iter(response.text.splitlines()))
        assert kind == "error"
    else:
        said = response.json()
        assert response.status_code == status
    assert (said["status"], said["field"]) == (status, field)
    assert said["error"]


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b"\xff", JSON, 400),
        (b'["text"]', JSON, 400),
        (b'{"text": "Hi"}', {"content-type": "text/plain"}, 415),
        (b'{"text": "Hi"}', {}, 415),
        (b'{"text": "' + b"x" * (17 * 2**20) + b'"}', JSON, 413),
    ],
)
def test_what_is_no_such_request_is_refused(suite: Suite, body: bytes, headers: dict[str, str], status: int) -> None:
    response = httpx.post(f"{suite.url}stream/translate", content=body, headers=headers, timeout=60)
    assert response.status_code == status
    assert response.json()["error"]
    assert httpx.get(f"{suite.url}stream/translate").status_code == 405


def test_a_browser_is_not_told_that_another_site_may_send_it(suite: Suite) -> None:
    asked = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    preflight = httpx.options(f"{suite.url}stream/translate", headers=asked)
    assert "access-control-allow-origin" not in preflight.headers


# -- a lost connection ---------------------------------------------------------------------------------------


def test_who_disconnects_stops_the_computation(suite: Suite, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.predict("Hello", api_name="/next_token")
    eventually(lambda: at_rest(suite), "the suite is at rest")
    steps = Steps(suite.runtime, free=5)
    monkeypatch.setattr(suite.runtime.lane, "submit", steps.submit)
    inputs = {"prompt": "Once upon a time", "max_new_tokens": 1000}
    with httpx.stream("POST", f"{suite.url}stream/generate", json=inputs, timeout=PATIENCE) as response:
        for kind, _ in parsed(response.iter_lines()):
            if kind == "delta":
                break
    eventually(lambda: at_rest(suite), "the request without a client has given everything back")
    assert not steps.never_cancelled
    assert steps.begun <= 5
    assert suite.traffic.report()["generate"]["cancelled"] >= 1


# -- limits and log-in -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[Suite]:
    """A suite with a password, and two requests a minute."""
    settings: dict[str, Any] = {"auth": "ann:se:cret", "requests_per_minute": 2, "admin": False}
    running = serve(Settings(port=0, warm_examples=False, spaces=("translation",), **settings), block=False)
    yield running
    running.close()


def basic(user_and_password: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(user_and_password.encode()).decode()}"}


def test_where_there_is_a_password_it_must_be_given(guarded: Suite) -> None:
    address = f"{guarded.url}stream/translate"
    for headers in (
        {},
        basic("ann:wrong"),
        {"authorization": "Basic"},
        {"authorization": "Basic ?"},
        {"authorization": "Bearer x"},
    ):
        response = httpx.post(address, json={"text": " "}, headers=headers, timeout=60)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Basic")
    assert httpx.post(address, json={"text": "Hi"}, headers={"cookie": "access-token-x=1"}).status_code == 401
    assert httpx.post(f"{guarded.url}stream/nowhere", json={}).status_code == 401
    # Refused for its text, so it was let in; and what is refused counts, as everywhere.
    assert httpx.post(address, json={"text": " "}, headers=basic("ann:se:cret")).status_code == 422
    with httpx.Client() as visitor:
        login = {"username": "ann", "password": "se:cret"}
        visitor.post(f"{guarded.url}login", data=login).raise_for_status()
        assert visitor.post(address, json={"text": " "}).status_code == 422
        refused = visitor.post(address, json={"text": "Good morning."})
    assert refused.status_code == 429
    assert "2 requests a minute" in refused.json()["error"]
