"""Nothing of one visitor reaches another: not through answers, nor through the server's own pages."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file

from shared.suite import Suite

SECRET = "zanzibar-4711"


class Visitor:
    """A browser on the page: a session of its own, and the page's private events."""

    def __init__(self, suite: Suite) -> None:
        self.url = suite.url
        self.session = uuid.uuid4().hex
        self.config = httpx.get(f"{self.url}config").json()
        self.components = {c["id"]: c["props"] for c in self.config["components"]}

    def click(self, button: str, **changed: Any) -> str:
        """What the page is sent after a click, with other values in the fields of these labels."""
        clicked = next(key for key, props in self.components.items() if props.get("elem_id") == button)
        event = next(d for d in self.config["dependencies"] if [clicked, "click"] in d["targets"])
        data = [
            changed.get(str(self.components[key].get("label")).replace(" ", "_"), self.components[key].get("value"))
            for key in event["inputs"]
        ]
        body = {"data": data, "fn_index": event["id"], "session_hash": self.session}
        httpx.post(f"{self.url}gradio_api/queue/join", json=body).raise_for_status()
        received = []
        address = f"{self.url}gradio_api/queue/data?session_hash={self.session}"
        with httpx.stream("GET", address, timeout=120) as stream:
            for line in stream.iter_lines():
                if '"close_stream"' in line:
                    break
                received.append(line)
        return "\n".join(received)


def test_chats_are_apart(suite: Suite) -> None:
    ann, bob = Visitor(suite), Visitor(suite)
    ann.click("chat-run", Message=f"My code word is {SECRET}.", New_tokens=2)
    theirs = bob.click("chat-run", Message="What is my code word?", New_tokens=2)
    own = ann.click("chat-run", Message="What is my code word?", New_tokens=2)
    assert SECRET in own, "a chat must remember its own turns"
    assert SECRET not in theirs
    assert "What is my code word?" in theirs


def test_a_new_chat_forgets(suite: Suite) -> None:
    ann = Visitor(suite)
    ann.click("chat-run", Message=f"My code word is {SECRET}.", New_tokens=2)
    ann.click("chat-clear")
    assert SECRET not in ann.click("chat-run", Message="What is my code word?", New_tokens=2)


def test_the_chat_endpoint_keeps_nothing(suite: Suite) -> None:
    client = Client(suite.url, verbose=False)
    first = client.predict("Say hello.", max_new_tokens=2, api_name="/chat")[1]["input_tokens"]
    client.predict(f"My code word is {SECRET}.", max_new_tokens=2, api_name="/chat")
    assert client.predict("Say hello.", max_new_tokens=2, api_name="/chat")[1]["input_tokens"] == first


def test_only_examples_have_shared_answers(suite: Suite) -> None:
    ann, bob = Client(suite.url, verbose=False), Client(suite.url, verbose=False)
    for visitor in (ann, bob):
        assert visitor.predict(f"{SECRET} is a word.", api_name="/translate")[1]["cached"] is False
    example = next(inputs for name, inputs in expected_examples(suite) if name == "translate")
    ann.predict(**example, api_name="/translate")
    again = bob.predict(**example, api_name="/translate")
    assert again[1]["cached"] is True
    # The same text with another setting is another question.
    assert bob.predict(**{**example, "num_beams": 2}, api_name="/translate")[1]["cached"] is False


def expected_examples(suite: Suite) -> Iterator[tuple[str, dict[str, Any]]]:
    for endpoint, request in suite.traffic.answers._examples.values():
        yield endpoint, request.model_dump(mode="json")


@pytest.fixture(scope="module")
def after_a_visit(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A session in which the secret was typed into every kind of request."""
    visitor = Visitor(suite)
    visitor.click("translate-run", Text=f"{SECRET} is a word.")
    visitor.click("chat-run", Message=f"My code word is {SECRET}.", New_tokens=2)
    visitor.click("sentiment-run", Text="\x00" + SECRET)
    file = tmp_path_factory.mktemp("batch") / "texts.csv"
    file.write_text(f"text\n{SECRET}\n", encoding="utf-8")
    Client(suite.url, verbose=False).predict("translate", handle_file(str(file)), {}, api_name="/batch")
    return visitor.session


@pytest.mark.parametrize(
    "path",
    [
        "",
        "config",
        "health",
        "openapi.json",
        "gradio_api/info",
        "gradio_api/openapi.json",
        "gradio_api/queue/status",
        "gradio_api/startup-events",
        "gradio_api/runs",
        "gradio_api/run-history/records",
        "monitoring",
        "monitoring/summary",
        "gradio_api/profiling/traces",
        "theme.css",
    ],
)
def test_pages_of_the_server_tell_nothing_of_visitors(suite: Suite, after_a_visit: str, path: str) -> None:
    page = httpx.get(f"{suite.url}{path}", follow_redirects=True)
    assert page.status_code < 500
    assert SECRET not in page.text
    assert after_a_visit not in page.text


def test_the_models_report_tells_nothing_of_visitors(suite: Suite, after_a_visit: str) -> None:
    report = json.dumps(Client(suite.url, verbose=False).predict(api_name="/models"))
    assert SECRET not in report
    assert after_a_visit not in report


def test_run_history_and_monitoring_are_off(suite: Suite) -> None:
    config = httpx.get(f"{suite.url}config").json()
    assert config["run_history"] is False
    assert config["analytics_enabled"] is False
    assert httpx.get(f"{suite.url}gradio_api/runs").status_code == 404
    assert httpx.get(f"{suite.url}monitoring").status_code in (403, 404)
    assert httpx.get(f"{suite.url}monitoring/summary").status_code in (403, 404)


@pytest.mark.parametrize("path", ["app.py", "shared/settings.py", "/etc/passwd", "../etc/passwd", "tests/conftest.py"])
def test_files_of_the_server_are_not_served(suite: Suite, path: str) -> None:
    for address in (path, str(Path(__file__).parent.parent / path)):
        assert httpx.get(f"{suite.url}gradio_api/file={address}").status_code in (403, 404)


def test_weights_are_not_served(suite: Suite) -> None:
    weights = next(suite.settings.weights_dir.rglob("*.safetensors"))
    assert httpx.get(f"{suite.url}gradio_api/file={weights}").status_code == 403


def test_visitors_keys_tell_nothing_about_them_in_the_log(
    suite: Suite, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(suite.url, verbose=False)
    client.predict(f"{SECRET} is a word.", api_name="/translate")
    body = {"data": [SECRET]}  # too few values: an error that is not ours
    asked = httpx.post(f"{suite.url}gradio_api/call/translate", json=body).json()
    httpx.get(f"{suite.url}gradio_api/call/translate/{asked.get('event_id')}", timeout=60)
    streams = capsys.readouterr()
    assert SECRET not in streams.out + streams.err + caplog.text
