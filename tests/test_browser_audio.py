"""The Audio genre tab in a real browser: a real mp3, a timeline that plays, an error in its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from shared.settings import Settings
from shared.suite import Suite, serve
from tests.browsing import Open, answered, contrast, overflow, unfold
from tests.recordings import tone, write

pytestmark = pytest.mark.browser

TAB = "?tab=audio_genre"


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    running = serve(Settings(port=0, spaces=("audio_genre",)), block=False)
    yield running
    running.close()


def player(page: Page, what: str) -> float:
    return page.evaluate(f"() => document.querySelector('#audio_genre-result audio').{what}")


def upload(page: Page, file: Path) -> None:
    page.locator("#audio_genre-audio").get_by_label("Clear").click()
    page.locator("#audio_genre-audio input[type=file]").set_input_files(file)
    expect(page.locator("#audio_genre-audio").get_by_label("Play", exact=True)).to_be_visible()


def test_the_first_example_is_answered_and_plays_from_where_one_clicks(open_page: Open) -> None:
    page = open_page(TAB)
    answered(page, "audio_genre")
    result = page.locator("#audio_genre-result")
    expect(result.locator(".bar .name").first).to_have_text("techno")
    expect(result.locator(".bar")).to_have_count(5)
    expect(result).to_contain_text("Independent tags: each score stands alone")
    expect(result).to_contain_text("3.0 s of silence were skipped")
    expect(result.locator(".over-time img")).to_be_visible()
    assert page.evaluate("() => document.querySelector('.over-time img').naturalWidth") > 300
    assert page.locator("#audio_genre-run").bounding_box()["y"] < 800  # type: ignore[index]
    page.wait_for_function("() => document.querySelector('#audio_genre-result audio').readyState > 0")
    ambient = result.get_by_role("button", name="0:30 to 0:33: ambient")
    expect(ambient).to_have_text("76")
    ambient.click()
    page.wait_for_function("() => document.querySelector('#audio_genre-result audio').currentTime >= 30")
    assert 30 <= player(page, "currentTime") < 39
    unfold(page, "What happened")
    expect(page.locator(".block.what").locator("visible=true")).to_contain_text("Opus, 24 kHz, 1 channel; 39.6 s")


@pytest.mark.slow
def test_a_real_mp3_is_uploaded_and_heard(open_page: Open, tmp_path: Path) -> None:
    page = open_page(TAB)
    answered(page, "audio_genre")
    upload(page, write(tmp_path / "my song.mp3", np.repeat(tone(7)[:, None], 2, axis=1)))
    page.locator("#audio_genre-run").click()
    result = page.locator("#audio_genre-result")
    expect(result.locator(".strip").first.locator("button")).to_have_count(3)
    answered(page, "audio_genre")
    expect(page.locator("#audio_genre-account")).not_to_contain_text("stored answer")
    page.wait_for_function("() => document.querySelector('#audio_genre-result audio').duration > 6.5")
    unfold(page, "Call it")
    code = page.locator(".snippet pre").locator("visible=true").first
    expect(code).to_contain_text("from gradio_client import Client, handle_file")
    expect(code).to_contain_text("handle_file('my song.mp3')")
    assert str(tmp_path) not in page.url


def test_what_is_no_recording_is_said_where_the_result_would_stand(open_page: Open, tmp_path: Path) -> None:
    page = open_page(TAB)
    answered(page, "audio_genre")
    words = tmp_path / "words.mp3"
    words.write_text("These are the words of a song.\n" * 50)
    upload_anything = page.locator("#audio_genre-audio input[type=file]")
    page.locator("#audio_genre-audio").get_by_label("Clear").click()
    page.locator("#audio_genre-run").click()
    expect(page.locator("#audio_genre-result [role=alert]")).to_contain_text("audio is missing; upload a recording")
    upload_anything.set_input_files(words)
    expect(page.locator("#audio_genre-audio").get_by_label("Clear")).to_be_visible()
    page.locator("#audio_genre-run").click()
    expect(page.locator("#audio_genre-result [role=alert]")).to_contain_text("audio is not a sound file")
    page.get_by_role("button", name="Pad", exact=True).click()
    expect(page.locator("#audio_genre-result .bar .name").first).to_have_text("ambient")


@pytest.mark.parametrize(("query", "width"), [("", 390), ("&__theme=dark", 1280)])
def test_it_fits_a_phone_and_reads_in_the_dark(open_page: Open, query: str, width: int) -> None:
    page = open_page(TAB + query, width, 844)
    answered(page, "audio_genre")
    assert overflow(page) <= 0
    for selector in (".over-time .name", "#audio_genre-result .limits", ".ends", ".segment:not(.silent)"):
        assert contrast(page, selector) >= 4.5
    strip, picture = page.locator(".strip").first.bounding_box(), page.locator(".strip.picture").bounding_box()
    assert strip is not None
    assert picture is not None
    assert (strip["x"], strip["width"]) == (picture["x"], picture["width"])
