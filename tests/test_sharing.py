"""Ways to hand the suite to others: a Space's id for programs, a frame in another page, a share link."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gradio.networking
import httpx
import pytest
from gradio_client import Client
from huggingface_hub.errors import RepositoryNotFoundError
from playwright.sync_api import expect

from shared.settings import Settings
from shared.suite import Suite, serve
from tests.browsing import PATIENCE, chromium
from tests.stand_in_hub import StandInHub


@pytest.mark.usefixtures("hub_env")
def test_a_spaces_id_is_all_that_a_program_needs(suite: Suite, hub: StandInHub, tmp_path: Path) -> None:
    hub.add("user/suite", {"app.py": "import gradio"}, repo_type="space", card={"sdk": "gradio"})
    hub.repository("user/suite", "space").space.host = suite.url.rstrip("/")
    client = Client("user/suite", verbose=False, download_files=tmp_path)
    assert client.space_id == "user/suite"
    scores, run = client.predict("The striker scored twice.", candidate_labels="sports, cooking", api_name="/zero_shot")
    assert scores["label"] == "sports"
    assert run["checkpoint"] == "all-MiniLM-L6-v2"
    with pytest.raises(RepositoryNotFoundError):
        Client("user/nowhere", verbose=False, download_files=tmp_path)


@pytest.fixture
def framed() -> Iterator[Suite]:
    running = serve(Settings(port=0, warm_examples=False, spaces=("reading", "translation")), block=False)
    yield running
    running.close()


@pytest.fixture
def embedding_page(framed: Suite) -> Iterator[str]:
    """Address of a page on another port with the suite in a frame, as docs/SHARING.md has it."""
    text = (Path(__file__).parent.parent / "docs" / "SHARING.md").read_text(encoding="utf-8")
    frame = next(line for line in text.splitlines() if line.startswith("<iframe "))
    shown = frame.replace("https://user-space.example/", framed.url)
    assert framed.url in shown

    class Blog(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<!doctype html><title>A blog</title><h1>Try it</h1>{shown}".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Blog) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.mark.browser
@pytest.mark.slow
def test_the_suite_works_in_a_frame_of_another_page(embedding_page: str) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(embedding_page)
        frame = page.frame_locator("iframe")
        expect(frame.get_by_role("tab", name="Translation")).to_be_visible(timeout=PATIENCE)
        text = frame.locator("#translate-text textarea")
        expect(text).to_have_value("Good morning!")  # the link in the frame's address
        frame.locator("#translate-run").click()
        expect(frame.locator("#translate-result")).to_contain_text("Bom dia", timeout=PATIENCE)


def test_a_share_link_is_asked_for_and_makes_nobody_the_admin(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}
    done = threading.Event()

    def tunnel(**options: Any) -> str:
        asked.update(options)
        done.set()
        return "http://abc.relay.example/"

    monkeypatch.setattr(gradio.networking, "setup_tunnel", tunnel)
    monkeypatch.setenv("SUITE_SHARE", "true")
    settings = Settings(port=0, warm_examples=False, spaces=("translation",))
    assert not settings.everyone_is_admin
    suite = serve(settings, block=False)
    try:
        assert done.wait(60)
        assert f"http://127.0.0.1:{asked['local_port']}/" == suite.url
        assert asked["share_token"]
        for thread in threading.enumerate():
            if thread.name == "share-link":
                thread.join(60)
        assert "Shared at https://abc.relay.example/" in capfd.readouterr().out
        assert httpx.post(f"{suite.url}stream/translate", json={"text": "Good morning."}).status_code == 200
    finally:
        suite.close()
    assert Settings(port=0, share=False).everyone_is_admin
