"""A suite whose fast engines cannot run says so on the Models tab, and answers by the reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gradio_client import Client
from playwright.sync_api import Browser, expect

from shared.page.models_tab import slower_note
from shared.settings import Settings
from shared.suite import Suite, serve
from tests.browsing import Open, opener

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def reference() -> Iterator[Suite]:
    settings = Settings(port=0, engines="reference", warm_examples=False, spaces=("translation",), answer_cache=0)
    running = serve(settings, block=False)
    yield running
    running.close()


@pytest.fixture
def open_reference(browser: Browser, reference: Suite) -> Iterator[Open]:
    with opener(browser, reference.url) as open_page:
        yield open_page


@pytest.mark.parametrize("query", ["?tab=models", "?tab=translation"])
def test_the_models_tab_says_once_who_is_served_by_the_reference(open_reference: Open, query: str) -> None:
    page = open_reference(query)
    if "models" not in query:
        page.get_by_role("tab", name="Models").click()
    note = page.locator("#models-slower .note")
    expect(note).to_have_count(1)
    expect(note).to_contain_text("SUITE_ENGINES is set to reference")
    for name in ("SmolLM2-135M-Instruct", "all-MiniLM-L6-v2", "firefox-translations-en-pt"):
        expect(note).to_contain_text(name)
    expect(note).to_contain_text("Slower, and requests are not batched")


def test_the_answer_says_which_engine_it_is_from(reference: Suite) -> None:
    text, run = Client(reference.url, verbose=False).predict("Good morning.", api_name="/translate")
    assert text == "Bom dia."
    assert run["engine"] == "torch-fp32"


def test_nothing_is_said_where_the_fast_engines_run(suite: Suite) -> None:
    assert slower_note(suite.runtime) == ""
