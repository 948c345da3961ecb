"""What people see: every tab in a real browser against the running suite, with real weights."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlparse

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from shared.suite import Suite

pytestmark = pytest.mark.browser

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000
"""Milliseconds an answer may take; a bound for hangs, not a measure."""

expect.set_options(timeout=PATIENCE)

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("Chromium is missing: install Debian's `chromium` (or set it on PATH) for the browser tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, suite: Suite) -> Iterator[Open]:
    """`open_page(query, width, height)`: the suite's page. At the end: no foreign host asked, no script error."""
    foreign: list[str] = []
    broken: list[str] = []
    contexts = []

    def open_(query: str = "", width: int = 1280, height: int = 800) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        host = urlparse(suite.url).netloc
        page.on(
            "request",
            lambda r: (
                foreign.append(r.url) if r.url.startswith(("http", "ws")) and urlparse(r.url).netloc != host else None
            ),
        )
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(suite.url + query)
        page.wait_for_selector("#suite-tabs")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert foreign == []
    assert broken == []


def answered(page: Page, endpoint: str) -> None:
    """Waits until the form is idle with an account of a run."""
    expect(page.locator(f"#{endpoint}-account")).to_contain_text("computing", timeout=PATIENCE)
    expect(page.locator(f"#{endpoint}-run")).to_be_enabled(timeout=PATIENCE)


def fill(page: Page, element: str, text: str) -> None:
    page.locator(f"#{element} textarea, #{element} input").first.fill(text)


def test_first_visit_shows_a_real_answer_and_the_buttons_above_the_fold(open_page: Open) -> None:
    page = open_page()
    answered(page, "zero_shot")
    expect(page.locator("#zero_shot-result .answer")).to_have_text("health")
    for element in ("zero_shot-text", "zero_shot-run", "zero_shot-result"):
        box = page.locator(f"#{element}").bounding_box()
        assert box is not None
        assert box["y"] < 800
    expect(page.locator(".suite-header")).to_contain_text("embedded")
    expect(page.locator(".memory-text")).to_contain_text("MB")


def test_zero_shot_with_ones_own_labels_and_a_look_behind(open_page: Open) -> None:
    page = open_page()
    answered(page, "zero_shot")
    fill(page, "zero_shot-text", "The goalkeeper saved a penalty in the final minute.")
    fill(page, "zero_shot-labels", "football, cooking, law")
    page.locator("#zero_shot-run").click()
    expect(page.locator("#zero_shot-result .answer")).to_have_text("football")
    expect(page.locator("#zero_shot-result .bar")).to_have_count(3)
    page.get_by_role("button", name="What happened").locator("visible=true").click()
    expect(page.locator(".block.what").locator("visible=true")).to_contain_text("This text is about {}.")


def test_an_error_stands_where_the_result_would_and_the_input_stays(open_page: Open) -> None:
    page = open_page()
    answered(page, "zero_shot")
    fill(page, "zero_shot-labels", "only one")
    page.locator("#zero_shot-run").click()
    expect(page.locator("#zero_shot-result [role=alert]")).to_contain_text(
        "candidate labels needs two different labels"
    )
    expect(page.locator("#zero_shot-labels textarea")).to_have_value("only one")
    fill(page, "zero_shot-labels", "health, music")
    page.locator("#zero_shot-run").click()
    expect(page.locator("#zero_shot-result .answer")).to_have_text("health")


def test_html_in_a_label_shows_as_text(open_page: Open) -> None:
    page = open_page()
    answered(page, "zero_shot")
    nasty = "<img src=x onerror=document.title='owned'>"
    fill(page, "zero_shot-labels", f"{nasty}, health")
    page.locator("#zero_shot-run").click()
    expect(page.locator("#zero_shot-result")).to_contain_text(nasty)
    assert page.locator("#zero_shot-result img").count() == 0
    assert page.title() != "owned"


def test_zero_one_and_few_stand_side_by_side(open_page: Open) -> None:
    page = open_page("?tab=classification&form=few_shot")
    page.locator("#few_shot-run").click()
    expect(page.locator("#few_shot-result .side section")).to_have_count(3, timeout=PATIENCE)
    answered(page, "few_shot")
    expect(page.locator("#few_shot-result h3").nth(2)).to_contain_text("Few-shot")
    page.get_by_role("button", name="What happened").locator("visible=true").click()
    expect(page.locator(".what pre").locator("visible=true").first).to_contain_text("Label:")


def test_an_example_runs_in_one_click(open_page: Open) -> None:
    page = open_page("?tab=summarization")
    answered(page, "summarize")
    page.get_by_role("button", name="Dialogue: a lost suitcase").click()
    expect(page.locator("#summarize-result")).to_contain_text("Clara:")
    expect(page.get_by_label("Dialogue", exact=True)).to_be_checked()
    page.get_by_role("button", name="What happened").locator("visible=true").click()
    expect(page.locator(".what mark").locator("visible=true").first).to_be_visible()


def test_translation_with_swap_and_alignment(open_page: Open) -> None:
    page = open_page("?tab=translation")
    answered(page, "translate")
    page.locator("#translate-swap").click()
    expect(page.get_by_label("From")).to_have_value("Portuguese (pt)")
    fill(page, "translate-text", "A casa é grande. O cachorro é pequeno.")
    page.locator("#translate-run").click()
    expect(page.locator("#translate-result")).to_contain_text("house")
    page.get_by_role("button", name="What happened").locator("visible=true").click()
    expect(page.locator(".what tbody tr").locator("visible=true")).to_have_count(2)


def test_a_wrong_source_language_is_said(open_page: Open) -> None:
    page = open_page(
        "?tab=translation&form=translate&text=" + quote("Das Haus ist groß und der Hund schläft im Garten.")
    )
    page.locator("#translate-run").click()
    expect(page.locator("#translate-result .note")).to_contain_text("German")


def test_generation_streams_and_stop_stops(open_page: Open, suite: Suite) -> None:
    page = open_page("?tab=generation&form=generate&max_new_tokens=900&prompt=" + quote("Count: one, two, three,"))
    page.locator("#generate-run").click()
    expect(page.locator("#generate-result .t").nth(3)).to_be_visible()
    page.locator("#generate-stop").click()
    expect(page.locator("#generate-account")).to_contain_text("Stopped")
    expect(page.locator("#generate-run")).to_be_enabled()
    page.wait_for_function(
        "async () => (await (await fetch('health')).json()).requests.running === 0", timeout=PATIENCE
    )
    said = page.locator("#generate-result .t").count()
    assert 3 < said < 900


def test_chat_remembers_and_shows_html_as_text(open_page: Open) -> None:
    page = open_page("?tab=generation")
    page.get_by_role("tab", name="Chat").click()
    page.locator("button.label-wrap", has_text="Settings").locator("visible=true").click()
    page.get_by_label("number input for New tokens").locator("visible=true").fill("12")
    fill(page, "chat-message", "<b>Hello</b>, I am Bob.")
    page.locator("#chat-run").click()
    expect(page.locator("#chat-account")).to_contain_text("computing")
    expect(page.locator("#chat-result .user .said")).to_have_text("<b>Hello</b>, I am Bob.")
    fill(page, "chat-message", "Who am I?")
    page.locator("#chat-run").click()
    expect(page.locator("#chat-result .turn")).to_have_count(4)
    expect(page.locator("#chat-run")).to_be_enabled(timeout=PATIENCE)
    page.locator("#chat-clear").click()
    expect(page.locator("#chat-result .turn")).to_have_count(0)


def test_a_link_restores_a_chat_and_its_call_is_printed(open_page: Open) -> None:
    page = open_page("?tab=generation&form=chat&max_new_tokens=9&message=" + quote("Tell me a joke."))
    expect(page.locator("#chat-message textarea")).to_have_value("Tell me a joke.")
    page.get_by_role("button", name="Call it from a program").locator("visible=true").click()
    shown = page.locator(".snippet pre").locator("visible=true").first
    expect(shown).to_contain_text("message='Tell me a joke.'")
    expect(shown).to_contain_text("max_new_tokens=9")
    expect(shown).to_contain_text('api_name="/chat"')


def test_next_token_follows_the_slider_and_a_click_appends(open_page: Open) -> None:
    page = open_page("?tab=generation&form=next_token&prompt=" + quote("The capital of France is"))
    page.get_by_role("button", name="Look again").click()
    expect(page.locator("#next_token-result .chance").first).to_contain_text("Paris")
    before = page.locator("#next_token-result .chance .value").first.inner_text()
    page.get_by_label("number input for Temperature").locator("visible=true").fill("2")
    page.keyboard.press("Tab")
    expect(page.locator("#next_token-result .chance .value").first).not_to_have_text(re.compile(re.escape(before)))
    page.locator("#next_token-result .chance").first.click()
    expect(page.locator("#next_token-prompt textarea")).to_have_value("The capital of France is Paris")
    expect(page.locator("#next_token-result .chance").first).not_to_contain_text("Paris")


def test_batch_of_pasted_lines_gives_a_table_and_a_file(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("tab", name="Sentiment").click()
    page.get_by_role("button", name=re.compile("Batch")).locator("visible=true").click()
    fill(page, "sentiment-batch-lines", "I loved it.\n<script>alert(1)</script> awful, never again.")
    page.locator("#sentiment-batch-run").click()
    expect(page.locator("#sentiment-batch-result tbody tr")).to_have_count(2)
    expect(page.locator("#sentiment-batch-result")).to_contain_text("<script>alert(1)</script>")
    link = page.locator("a[download]").locator("visible=true").first
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "sentiment.csv"


def test_a_link_restores_tab_and_inputs_and_the_address_follows_them(open_page: Open) -> None:
    page = open_page("?tab=translation&form=translate&src_lang=pt&tgt_lang=en&text=" + quote("Bom dia, Ana!"))
    expect(page.locator("#translate-text textarea")).to_have_value("Bom dia, Ana!")
    expect(page.get_by_label("From")).to_have_value("Portuguese (pt)")
    page.locator("#translate-text textarea").click()
    fill(page, "translate-text", "Boa noite.")
    page.wait_for_function("() => location.search.includes('Boa')")
    again = open_page("?" + page.url.split("?", 1)[1])
    expect(again.locator("#translate-text textarea")).to_have_value("Boa noite.")


def test_hostile_links_are_skipped_not_shown(open_page: Open) -> None:
    page = open_page(
        "?tab=nowhere&form=generate&temperature=1e9&top_k=[1]&seed=null&model=evil&prompt=" + quote("<b>x")
    )
    answered(page, "zero_shot")
    page.get_by_role("tab", name="Text generation").click()
    expect(page.locator("#generate-prompt textarea")).to_have_value("<b>x")
    page.locator("button.label-wrap", has_text="Settings").locator("visible=true").click()
    expect(page.get_by_label("number input for Temperature").locator("visible=true")).to_have_value("0.7")


def test_snippets_hold_the_visitors_inputs(open_page: Open, suite: Suite) -> None:
    page = open_page("?tab=translation")
    answered(page, "translate")
    fill(page, "translate-text", "It's a test.")
    page.get_by_role("button", name="Call it from a program").locator("visible=true").click()
    shown = page.locator(".snippet pre").locator("visible=true")
    expect(shown).to_have_count(3)
    expect(shown.first).to_contain_text('"It\'s a test."')
    expect(shown.first).to_contain_text(suite.url.rstrip("/"))


def test_models_tab_shows_what_is_loaded_and_unloads(open_page: Open, suite: Suite) -> None:
    page = open_page("?tab=translation")
    answered(page, "translate")
    page.get_by_role("tab", name="Models").click()
    row = page.locator("#models-report tbody tr", has_text="firefox-translations-en-pt")
    expect(row).to_contain_text("loaded")
    page.get_by_label("Checkpoint").click()
    page.get_by_role("option", name="firefox-translations-en-pt").click()
    page.locator("#models-unload").click()
    expect(row).to_contain_text("on disk")
    page.locator("#models-pin").click()
    expect(row).to_contain_text("pinned", timeout=PATIENCE)
    page.locator("#models-unpin").click()
    expect(row).not_to_contain_text("pinned")


@pytest.mark.parametrize("tab", ["classification", "summarization", "translation", "generation", "models"])
def test_nothing_overflows_on_a_phone(open_page: Open, tab: str) -> None:
    page = open_page(f"?tab={tab}", 390, 844)
    page.wait_for_timeout(1500)
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= 390


def test_dark_mode_has_readable_text(open_page: Open) -> None:
    page = open_page("?__theme=dark")
    answered(page, "zero_shot")
    contrast = page.evaluate(CONTRAST, "#zero_shot-result .shown")
    muted = page.evaluate(CONTRAST, "#zero_shot-account .run-line")
    assert contrast >= 4.5
    assert muted >= 4.5


def test_light_mode_has_readable_text(open_page: Open) -> None:
    page = open_page("?__theme=light")
    answered(page, "zero_shot")
    for selector in ("#zero_shot-result .shown", "#zero_shot-account .run-line", ".suite-header a", "#zero_shot-run"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector


CONTRAST = """(selector) => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const element = document.querySelector(selector);
  let behind = element, paper = [255, 255, 255];
  while (behind) {
    const colour = channels(getComputedStyle(behind).backgroundColor);
    if (colour.length < 4 || colour[3] > 0.9) { paper = colour; break; }
    behind = behind.parentElement;
  }
  const a = luminance(channels(getComputedStyle(element).color)), b = luminance(paper);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""
"""WCAG contrast of an element's text against what lies behind it."""
