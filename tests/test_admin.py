"""Who may load, pin and unload: the admin, whatever the page of another visitor sends."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from shared.settings import Settings
from shared.suite import Suite, serve

TOKEN = "the token of this test"
CHECKPOINT = "firefox-translations-en-pt"
BUTTONS = ("load", "unload", "pin", "unpin")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Suite]:
    """A suite whose visitors are not the admin."""
    settings = Settings(
        port=0,
        admin=False,
        admin_token=SecretStr(TOKEN),
        warm_examples=False,
        spaces=("translation",),
        max_upload=10**6,
        max_audio_upload=2 * 10**6,
    )
    running = serve(settings, block=False)
    yield running
    running.close()


@pytest.fixture(scope="module")
def loopback() -> Iterator[Suite]:
    """A suite as it is by default: on loopback, where everybody is the admin."""
    running = serve(
        Settings(port=0, admin_token=SecretStr(TOKEN), warm_examples=False, spaces=("translation",)), block=False
    )
    yield running
    running.close()


@pytest.fixture(autouse=True)
def nothing_loaded(guarded: Suite, loopback: Suite) -> None:
    for suite in (guarded, loopback):
        suite.runtime.cache.unpin(CHECKPOINT)
        suite.runtime.cache.unload(CHECKPOINT)


def test_an_upload_larger_than_any_input_may_be_is_refused(guarded: Suite) -> None:
    for size, status in ((1_900_000, 200), (2_100_000, 413)):
        files = {"files": ("long.wav", b"x" * size)}
        assert httpx.post(f"{guarded.url}gradio_api/upload", files=files).status_code == status


def click(
    suite: Suite, button: str, headers: dict[str, str] | None = None, cookies: dict[str, str] | None = None
) -> str:
    """Sends what the button of the Models tab sends; all that comes back."""
    with httpx.Client(base_url=suite.url, headers=headers, cookies=cookies, timeout=60) as http:
        config = httpx.get(f"{suite.url}config").json()
        ids = {c["id"] for c in config["components"] if c["props"].get("elem_id") == f"models-{button}"}
        event = next(d for d in config["dependencies"] if any(target[0] in ids for target in d["targets"]))
        assert event["api_visibility"] == "private"
        session = uuid.uuid4().hex
        body = {"data": [CHECKPOINT], "fn_index": event["id"], "session_hash": session}
        http.post("/gradio_api/queue/join", json=body).raise_for_status()
        received = []
        with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                if '"close_stream"' in line:
                    break
                received.append(line)
        return "\n".join(received)


def held(suite: Suite) -> dict[str, dict[str, Any]]:
    return {row["checkpoint"]: row for row in suite.runtime.cache.report()["checkpoints"]}


@pytest.mark.parametrize("button", BUTTONS)
@pytest.mark.parametrize(
    "headers", [{}, {"X-Suite-Admin": "a guess"}, {"X-Suite-Admin": ""}, {"X-Forwarded-For": "127.0.0.1"}]
)
def test_the_buttons_are_refused_to_visitors(guarded: Suite, button: str, headers: dict[str, str]) -> None:
    received = click(guarded, button, headers)
    assert "Only the admin may do this" in received
    assert "SUITE_ADMIN_TOKEN" in received
    assert held(guarded) == {}


def test_what_the_admin_loaded_and_pinned_stays_so(guarded: Suite) -> None:
    click(guarded, "pin", {"X-Suite-Admin": TOKEN})
    click(guarded, "unpin")
    click(guarded, "unload")
    assert held(guarded)[CHECKPOINT]["pinned"]


def test_the_header_opens_the_buttons(guarded: Suite) -> None:
    admin = {"X-Suite-Admin": TOKEN}
    click(guarded, "load", admin)
    assert held(guarded)[CHECKPOINT]["state"] == "loaded"
    click(guarded, "pin", admin)
    assert held(guarded)[CHECKPOINT]["pinned"]
    click(guarded, "unpin", admin)
    assert not held(guarded)[CHECKPOINT]["pinned"]
    assert "Only the admin" not in click(guarded, "unload", admin)
    assert held(guarded) == {}


def test_signing_in_sets_a_cookie_that_opens_the_buttons(guarded: Suite) -> None:
    signed_in = httpx.post(f"{guarded.url}admin", content=TOKEN)
    assert signed_in.status_code == 200
    assert signed_in.json() == {"admin": True}
    attributes = signed_in.headers["set-cookie"].lower()
    assert "httponly" in attributes
    assert "samesite=strict" in attributes
    click(guarded, "load", cookies=dict(signed_in.cookies))
    assert held(guarded)[CHECKPOINT]["state"] == "loaded"


def test_a_cookie_over_https_stays_on_https(guarded: Suite) -> None:
    signed_in = httpx.post(f"{guarded.url}admin", content=TOKEN, headers={"X-Forwarded-Proto": "https"})
    assert "secure" in signed_in.headers["set-cookie"].lower()


@pytest.mark.parametrize("body", ["a guess", TOKEN + "x", TOKEN[:-1], "\ud7ff", "x" * 100_000])
def test_a_wrong_token_does_not_sign_in(guarded: Suite, body: str) -> None:
    refused = httpx.post(f"{guarded.url}admin", content=body.encode())
    assert refused.status_code == 403
    assert "set-cookie" not in refused.headers
    assert TOKEN not in refused.text


def test_signing_out_removes_the_cookie(guarded: Suite) -> None:
    signed_out = httpx.post(f"{guarded.url}admin", content="")
    assert signed_out.json() == {"admin": False}
    assert "max-age=0" in signed_out.headers["set-cookie"].lower()


def test_on_loopback_everybody_is_the_admin(loopback: Suite) -> None:
    click(loopback, "load")
    assert held(loopback)[CHECKPOINT]["state"] == "loaded"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_foreign_name_for_this_machine_is_not_the_admin(loopback: Suite, host: str) -> None:
    assert "Only the admin may do this" in click(loopback, "load", {"Host": host})
    assert held(loopback) == {}


def test_who_comes_by_another_name_through_a_bare_proxy_is_not_the_admin(loopback: Suite) -> None:
    """It passes requests on under this machine's name and says nothing of its own; browsers say where they are."""
    assert "Only the admin may do this" in click(loopback, "load", {"Origin": "https://demo.example"})
    assert held(loopback) == {}
    click(loopback, "load", {"Origin": loopback.url.rstrip("/")})
    assert held(loopback)[CHECKPOINT]["state"] == "loaded"


def test_the_token_is_nowhere_in_what_visitors_get(guarded: Suite) -> None:
    pages = [httpx.get(f"{guarded.url}{path}").text for path in ("", "config", "gradio_api/info", "health")]
    assert all(TOKEN not in page for page in pages)


def test_a_public_suite_has_no_admin_without_a_token() -> None:
    public = Settings(host="0.0.0.0")
    assert not public.everyone_is_admin
    assert public.with_admin_token().admin_token.get_secret_value()
    assert not Settings(share=True).everyone_is_admin


def test_the_rate_limit_holds_per_address_and_spares_the_admin(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(
        port=0,
        admin=False,
        admin_token=SecretStr(TOKEN),
        warm_examples=False,
        spaces=("translation",),
        requests_per_minute=3,
    )
    suite = serve(settings, block=False)
    try:
        answers = [models(suite) for _ in range(4)]
        assert ["error" in answer for answer in answers] == [False, False, False, True]
        assert "3 requests a minute are allowed" in answers[3]["error"]
        assert "error" not in models(suite, {"X-Suite-Admin": TOKEN})
        assert "error" in models(suite)
        assert httpx.get(f"{suite.url}health").status_code == 200
    finally:
        suite.close()
    assert TOKEN in capsys.readouterr().out  # printed for the operator, once


def models(suite: Suite, headers: dict[str, str] | None = None) -> dict[str, Any]:
    asked = httpx.post(f"{suite.url}gradio_api/call/v2/models", json={}, headers=headers).json()
    events = httpx.get(f"{suite.url}gradio_api/call/models/{asked['event_id']}", headers=headers, timeout=60).text
    _, data = events.strip().split("\n\n")[-1].split("\n")
    said = json.loads(data.removeprefix("data: "))
    return said if isinstance(said, dict) else {"report": said[0]}
