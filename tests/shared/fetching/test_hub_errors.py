"""What the Hub's client raises, in words: without our token, and without addresses that open something."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from shared.errors import Cancelled, SuiteError, UnknownCheckpoint, WeightsCorrupt
from shared.fetching import hub_errors
from shared.fetching.hub_errors import HubRefused, HubUnreachable, as_suite_error, cause, model_info, without_addresses
from shared.fetching.hub_link import HubLink
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv
from tests.stand_in_hub.refusals import Refusal

TINY = {"config.json": "{}", "model.safetensors": b"12345678"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_errors, "BACKOFF", 0.01)


def asked(repo: str = "user/tiny", revision: str = "") -> Any:
    return model_info(HubLink("auto").api, repo, revision)


# -- by kind ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, HubUnreachable, r"the Hub answered 400 for user/tiny \(No\.\) Check the id"),
        (401, HubRefused, "the Hub does not let us read user/tiny"),
        (402, HubUnreachable, "the Hub answered 402"),
        (403, HubRefused, r"the Hub does not let us read user/tiny \(No\.\) If you may read it, set HF_TOKEN"),
        (404, HubUnreachable, "the Hub answered 404"),
        (429, HubUnreachable, r"fewer requests \(429\); wait a minute"),
        (451, HubUnreachable, "the Hub answered 451"),
        (500, HubUnreachable, r"the Hub answered 500 for user/tiny \(No\.\) Try again later"),
        (504, HubUnreachable, "the Hub answered 504"),
    ],
)
def test_statuses(hub: StandInHub, hub_env: HubEnv, status: int, kind: type[SuiteError], words: str) -> None:
    hub.add("user/tiny", TINY)
    hub.faults.refuse("/api/models/", Refusal(status, "No"), times=9)
    with pytest.raises(kind, match=words):
        asked()


@pytest.mark.parametrize("said", ["Invalid credentials in Authorization header", 'User Access Token "ci" is expired'])
def test_a_token_that_is_not_accepted(
    hub: StandInHub, hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    hub.add("user/tiny", TINY)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    hub.faults.refuse("/api/models/", Refusal(401, said))
    with pytest.raises(HubRefused, match=r"does not accept the token .* Correct HF_TOKEN, or remove it"):
        asked()


def test_who_gave_no_password_is_told_of_none(
    hub: StandInHub, hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UnknownCheckpoint) as unknown:
        asked("user/nothing")
    assert unknown.value.message.startswith(
        "the Hub has no repository user/nothing, or it is private. Check the spelling; if it is private, set HF_TOKEN"
    )
    hub.faults.refuse("/api/models/", Refusal(401, "Invalid username or password."))
    with pytest.raises(HubRefused, match=r"does not let us read user/tiny\. If you may read it, set HF_TOKEN"):
        asked()
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(UnknownCheckpoint, match=r"or it is private \(Repository not found\.\) Check"):
        asked("user/nothing")


def test_revisions(hub: StandInHub, hub_env: HubEnv) -> None:
    commit = hub.add("user/tiny", TINY)
    assert asked(revision=commit).sha == asked().sha == commit
    with pytest.raises(UnknownCheckpoint, match=r"no such revision on the Hub .*Name another"):
        asked(revision="0" * 40)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "the Hub cannot be reached"),
        (TimeoutError("timed out"), r"the Hub cannot be reached \(timed out\)"),
        (socket.gaierror(-2, "Name or service not known"), "the Hub cannot be reached"),
        (ssl.SSLError("certificate verify failed"), "the Hub cannot be reached"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full; make room"),
        (
            PermissionError(errno.EACCES, "Permission denied", "there"),
            r"cannot be written: Permission denied \(there\)",
        ),
        (OSError(errno.EROFS, "Read-only file system", "there"), "Read-only file system.*HF_HOME and SUITE_CACHE_DIR"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "there"), "Not a directory"),
    ],
)
def test_the_network_and_the_disk_are_told_apart(error: OSError, words: str) -> None:
    with pytest.raises(SuiteError, match=words):
        raise as_suite_error(error, "user/tiny")


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError(), Cancelled(), AssertionError()])
def test_a_mistake_of_ours_stays_one(error: Exception) -> None:
    with pytest.raises(type(error)):
        as_suite_error(error)


def test_errors_of_ours_stay_as_they_are() -> None:
    error = WeightsCorrupt("is damaged")
    assert as_suite_error(error) is error


# -- what is not said ------------------------------------------------------------------------------


def test_addresses() -> None:
    hub = "https://hub.example"
    words = f"see {hub}/user/x?token=1, 'http://u:p@store.example/a?Signature=2' or ftp://c.example/d."
    assert without_addresses(words) == "see the address 'the address' or the address"
    assert without_addresses(words, but=hub) == f"see {hub}/user/x 'the address' or the address"
    assert "the address" in without_addresses(f"{hub}.evil.example/x", but=hub)


def test_a_cause_is_one_short_line() -> None:
    assert cause(ValueError("")) == "ValueError"
    assert cause(ValueError("one\ntwo")) == "one"
    assert len(cause(ValueError("x" * 1000))) == 200


def test_what_the_hub_says_is_cleaned(hub: StandInHub, hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("user/tiny", TINY)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    said = f"Bearer hf_reader at http://store.example/x?Signature=s failed {'x' * 500}"
    hub.faults.refuse("/api/models/", Refusal(403, said))
    with pytest.raises(HubRefused) as refused:
        asked()
    assert "Bearer the token at the address failed xxx" in refused.value.message
    assert len(refused.value.message) < 700


# -- asking again ----------------------------------------------------------------------------------


def test_a_busy_hub_is_asked_four_times(hub: StandInHub, hub_env: HubEnv) -> None:
    commit = hub.add("user/tiny", TINY)
    hub.faults.server_error("/api/models/", times=3)
    assert asked().sha == commit
    assert len(hub.requests) == 4
    hub.faults.server_error("/api/models/", times=4)
    with pytest.raises(HubUnreachable, match="answered 503"):
        asked()
    assert len(hub.requests) == 8


def test_a_refusal_is_final(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.faults.refuse("/api/models/", Refusal(403, "No"), times=9)
    with pytest.raises(HubRefused):
        asked()
    assert len(hub.requests) == 1


def test_whoever_waits_can_leave(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.add("user/tiny", TINY)
    hub.faults.rate_limit("/api/models/", retry_after=30)

    def leave() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        model_info(HubLink("auto").api, "user/tiny", look=leave)


# -- what is no Hub --------------------------------------------------------------------------------

ANSWERS = {
    "a page": b"<html>Please sign in</html>",
    "a list": b"[]",
    "nothing": b"",
    "no id": b"{}",
    "no commit": b'{"id": "user/tiny"}',
    "a commit that is a path": b'{"id": "user/tiny", "sha": "../../../../x"}',
    "odd files": b'{"id": "user/tiny", "sha": "%s", "siblings": [3]}' % (b"a" * 40),
}


@pytest.fixture
def answers(hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What answers at HF_ENDPOINT says."""
    from huggingface_hub import constants

    said: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(said[0])))
            self.end_headers()
            self.wfile.write(said[0])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library named it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield said
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("case", ANSWERS)
def test_what_does_not_speak_as_a_hub(answers: list[bytes], case: str) -> None:
    answers.append(ANSWERS[case])
    with pytest.raises(SuiteError, match=r"is not a Hub; check HF_ENDPOINT|user/tiny cannot be read"):
        asked()
