"""The suite as an ASGI application: without a page, under uvicorn itself, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from starlette.testclient import TestClient

from shared.serving.space import ROOT
from shared.settings import Settings
from shared.suite import create_app
from tests.recordings import tone, write
from tests.served import free_port, inherited

LONG = {"prompt": "Once upon a time", "max_new_tokens": 250}
"""Inputs of a request that takes seconds."""


# -- in this process -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> Iterator[TestClient]:
    """A suite without a page, asked by a program."""
    settings = Settings(page=False, warm_examples=False, spaces=("translation", "audio_genre"))
    with TestClient(create_app(settings)) as client:
        yield client


def events(answer: Any) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in answer.text.strip().split("\n\n") if not block.startswith(":")]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks]


def test_without_a_page_the_api_is_whole(program: TestClient) -> None:
    kind, done = events(program.post("/stream/translate", json={"text": "Good morning."}))[-1]
    assert (kind, done["translation"]) == ("done", "Bom dia.")
    assert program.get("/").status_code == 404
    assert program.get("/health").json()["status"] == "ok"


def test_without_a_page_a_file_is_uploaded_by_our_own_route(program: TestClient, tmp_path: Path) -> None:
    recording = write(tmp_path / "tone.wav", tone(3))
    [path] = program.post("/upload", files={"files": ("../../tone.wav", recording.read_bytes())}).json()
    assert Path(path).name == "tone.wav"
    kind, done = events(program.post("/stream/audio_genre", json={"audio": {"path": path}}))[-1]
    assert kind == "done", done
    assert done["run_info"]["checkpoint"] == "musicnn"
    refused = program.post("/stream/audio_genre", json={"audio": {"path": str(recording)}})
    assert (refused.status_code, refused.json()["field"]) == (422, "audio")


@pytest.mark.parametrize(
    ("request_of", "status", "says"),
    [
        ({"files": {"other": ("a.wav", b"RIFF")}}, 400, "in the field `files`"),
        ({"content": b"no form", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"json": {"files": []}}, 400, "in the field `files`"),
        ({"files": [("files", (f"{n}.wav", b"RIFF")) for n in range(11)]}, 400, "files"),
    ],
    ids=["other field", "no form", "JSON", "too many"],
)
def test_what_is_no_upload_is_refused(program: TestClient, request_of: dict[str, Any], status: int, says: str) -> None:
    answer = program.post("/upload", **request_of)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]


def test_too_large_an_upload_is_refused_before_it_is_read(program: TestClient) -> None:
    largest = Settings().largest_upload
    answer = program.post("/upload", content=b"", headers={"Content-Length": str(2 * largest)})
    assert (answer.status_code, f"{largest:,} bytes" in answer.json()["error"]) == (413, True)


def test_another_method_is_refused_with_the_right_one(program: TestClient) -> None:
    answer = program.get("/stream/translate")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_live_and_ready_are_two_things(program: TestClient) -> None:
    app: Any = program.app
    assert program.get("/health/ready").json() == {"status": "ready"}
    draining = app.state.suite.draining
    draining.begun = True
    try:
        assert program.get("/health/ready").status_code == 503
        assert program.get("/health/live").json() == {"status": "live"}
        refused = program.post("/stream/translate", json={"text": "Good morning."})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "shutting down" in refused.json()["error"]
    finally:
        draining.begun = False


def test_log_in_is_asked_for_without_a_page_too() -> None:
    settings = Settings(page=False, warm_examples=False, spaces=("translation",), auth="me:secret")  # type: ignore[arg-type]
    with TestClient(create_app(settings)) as client:
        assert client.post("/upload", files={"files": b"RIFF"}).status_code == 401
        assert client.post("/stream/models", json={}).status_code == 401
        assert client.post("/stream/models", json={}, auth=("me", "secret")).status_code == 200
        assert client.get("/health/live").status_code == 200


def test_health_names_what_runs_on_a_slower_engine() -> None:
    settings = Settings(page=False, warm_examples=False, spaces=("translation",), engines="reference")
    with TestClient(create_app(settings)) as client:
        assert client.get("/health").json()["slower"] == {}
        assert events(client.post("/stream/translate", json={"text": "Good morning."}))[-1][0] == "done"
        slower = client.get("/health").json()["slower"]
        assert slower == {"SUITE_ENGINES is set to reference": ["firefox-translations-en-pt"]}


# -- in a process of its own -----------------------------------------------------------------------


@contextmanager
def running(tmp_path: Path, *command: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, with a folder of its own for temporary files, and its address."""
    port = str(free_port())
    (tmp_path / "temporary").mkdir()
    environment = {
        **inherited(),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'spaces'}",
        "TMPDIR": str(tmp_path / "temporary"),
        "SUITE_WARM_EXAMPLES": "false",
        "SUITE_SPACES": "generation",
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, *(part.replace("PORT", port) for part in command)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health/ready").raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield process, f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()


class Reading(threading.Thread):
    """Reads a stream of events to its end."""

    def __init__(self, url: str, inputs: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.url, self.inputs = url, inputs
        self.begun, self.kinds = threading.Event(), []
        self.start()

    def run(self) -> None:
        with httpx.stream("POST", self.url, json=self.inputs, timeout=120) as answer:
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    self.kinds.append(line.removeprefix("event: "))
                if line.startswith("event: delta"):
                    self.begun.set()


def end(process: subprocess.Popen[str], url: str, reading: Reading) -> tuple[int, str]:
    """Sends SIGTERM while a text is being generated. New requests are refused; returns status and output."""
    assert reading.begun.wait(120)
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 30
    while httpx.get(f"{url}health/ready").status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert httpx.get(f"{url}health/live").status_code == 200
    refused = httpx.post(f"{url}stream/generate", json=LONG)
    assert (refused.status_code, refused.json()["status"]) == (503, 503)
    output, _ = process.communicate(timeout=60)
    reading.join(10)
    return process.returncode, output


def test_uvicorn_serves_the_application_and_sigterm_lets_requests_end(tmp_path: Path) -> None:
    command = ("-m", "uvicorn", "--factory", "shared.suite:create_app", "--port", "PORT", "--log-level", "warning")
    with running(tmp_path, *command, SUITE_GRACE_SECONDS="60", SUITE_SPACES="generation,audio_genre") as (process, url):
        client = Client(url, verbose=False)
        genre = client.predict(handle_file(write(tmp_path / "tone.wav", tone(3))), api_name="/audio_genre")
        assert genre[0]["label"]
        assert list((tmp_path / "temporary").rglob("tone.wav"))
        reading = Reading(f"{url}stream/generate", LONG)
        status, output = end(process, url, reading)
    assert reading.kinds[-1] == "done"
    assert status == -signal.SIGTERM, output
    assert "1 requests have 60 s left" in output
    assert "Traceback" not in output
    assert not [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_what_does_not_end_in_time_is_cancelled(tmp_path: Path) -> None:
    command = ("app.py", "--no-page", "--port", "PORT")
    with running(tmp_path, *command, SUITE_GRACE_SECONDS="0.2") as (process, url):
        [uploaded] = httpx.post(f"{url}upload", files={"files": ("a.wav", b"RIFF")}).json()
        assert Path(uploaded).is_file()
        reading = Reading(f"{url}stream/generate", LONG | {"max_new_tokens": 1000})
        status, output = end(process, url, reading)
    assert reading.kinds[-1] == "error"
    assert status == 128 + signal.SIGTERM, output
    assert "did not end in time" in output
    assert "Traceback" not in output
    assert not Path(uploaded).parents[1].exists()


def test_without_a_page_gradio_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from shared.settings import Settings; from shared.suite import create_app\n"
        "create_app(Settings(page=False)); print([name for name in ('gradio', 'torch') if name in sys.modules])"
    )
    paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'spaces'}", "TMPDIR": str(tmp_path)}
    environment = {**inherited(), **paths}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
