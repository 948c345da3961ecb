"""Whether a Hub answers: asked in the background, and nobody ever waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shared.errors import SuiteError
from shared.fetching import hub_link
from shared.fetching.hub_link import ASK_AGAIN, HubLink
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def asked(link: HubLink) -> HubLink:
    thread = link.ask()
    assert thread is not None
    thread.join(20)
    assert not thread.is_alive()
    return link


def questions(hub: StandInHub) -> int:
    return sum(request.path == "/api/models" for request in hub.requests)


def test_it_answers(hub: StandInHub, hub_env: HubEnv) -> None:
    link = HubLink("auto")
    assert link.report() == {"state": "asking", "reason": "the Hub has not answered yet"}
    assert asked(link).report() == {"state": "answers", "reason": ""}
    assert link.ask() is None
    assert questions(hub) == 1
    link.require()
    assert link.api.endpoint == hub.endpoint


@pytest.mark.parametrize("status", [401, 403, 404, 429])
def test_a_refusal_is_an_answer_too(hub: StandInHub, hub_env: HubEnv, status: int) -> None:
    hub.faults.server_error("/api/models", status=status)
    assert asked(HubLink("auto")).state == "answers"


def test_the_question_carries_no_token(hub: StandInHub, hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    asked(HubLink("auto"))
    assert [request.headers.get("authorization") for request in hub.requests] == [None]


def test_embedded_never_asks(hub: StandInHub, hub_env: HubEnv) -> None:
    link = HubLink("embedded")
    assert link.ask() is None
    assert link.report() == {"state": "off", "reason": "the profile is embedded"}
    assert not hub.requests
    with pytest.raises(SuiteError, match="nothing can be fetched from the Hub: the profile is embedded"):
        link.require()


def test_offline_is_not_asked(hub: StandInHub, hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    link = asked(HubLink("auto"))
    assert link.report() == {"state": "offline", "reason": "HF_HUB_OFFLINE is set"}
    assert not hub.requests
    assert link.ask() is None
    with pytest.raises(SuiteError, match="HF_HUB_OFFLINE is set"):
        link.require()


def test_nobody_listens(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.faults.unreachable()
    link = asked(HubLink("auto"))
    assert link.state == "silent"
    assert link.reason.startswith("no Hub answers (")
    assert "refused" in link.reason
    assert "//" not in link.reason
    link.require()  # what somebody names is tried all the same


def test_a_broken_hub_is_silent(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.faults.server_error("/api/models", status=502)
    assert asked(HubLink("auto")).report() == {"state": "silent", "reason": "the Hub answered 502"}


def test_a_silent_one_is_asked_again_after_a_while(hub: StandInHub, hub_env: HubEnv) -> None:
    clock = Clock()
    link = HubLink("hub", clock)
    hub.faults.unreachable()
    asked(link)
    hub.faults.clear()
    clock.now += ASK_AGAIN - 1
    assert link.ask() is None
    assert link.state == "silent"
    clock.now += 1
    assert asked(link).state == "answers"


def test_one_question_at_a_time(hub: StandInHub, hub_env: HubEnv) -> None:
    clock = Clock()
    clock.now = 5.0
    link = HubLink("auto", clock)
    go_on = hub.faults.hang("/api/models")
    first = link.ask()
    assert first is not None
    assert link.ask() is None
    go_on.set()
    first.join(20)
    assert link.state == "answers"
    assert questions(hub) == 1


def test_one_that_hangs_delays_nobody(hub: StandInHub, hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_link, "PATIENCE", 0.2)
    hub.faults.hang("/api/models")
    link = HubLink("auto")
    thread = link.ask()
    assert thread is not None
    assert thread.daemon
    assert link.state == "asking"  # ask() has returned, and the answer has not come
    thread.join(20)
    assert link.state == "silent"
    assert "timed out" in link.reason


class NotAHub(BaseHTTPRequestHandler):
    """As a network that wants people to sign in: everything is moved to a page that is elsewhere."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", "http://user:secret@127.0.0.1:1/sign-in?session=secret")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library named it
        pass


@pytest.fixture
def not_a_hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), NotAHub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_no_address_is_shown(hub_env: HubEnv, not_a_hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", not_a_hub)
    link = asked(HubLink("auto"))
    assert link.state == "silent"
    assert "secret" not in link.reason
