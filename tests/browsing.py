"""Chromium on a suite's page, for tests of what people see."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

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


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips the test where there is none. For a module, not for a session: Playwright keeps the thread's event loop."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("Chromium is missing: install Debian's `chromium` (or set it on PATH) for the browser tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def opener(browser: Browser, url: str) -> Iterator[Open]:
    """`open_page(query, width, height)`: the suite's page. At the end: no foreign host asked, no script error."""
    foreign: list[str] = []
    broken: list[str] = []
    contexts = []
    host = urlparse(url).netloc

    def note_foreign(asked: str) -> None:
        if asked.startswith(("http", "ws")) and urlparse(asked).netloc != host:
            foreign.append(asked)

    def open_(query: str = "", width: int = 1280, height: int = 800) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: note_foreign(request.url))
        page.on("websocket", lambda socket: note_foreign(socket.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(url + query)
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


def unfold(page: Page, title: str) -> None:
    """Opens the accordion of this title on the tab that is shown."""
    page.locator("button.label-wrap", has_text=re.compile(title)).locator("visible=true").click()


def menu(page: Page, label: str) -> Locator:
    """The menu of this name on the tab that is shown."""
    return page.get_by_label(label, exact=True).locator("visible=true")


def options(page: Page, label: str) -> list[str]:
    """What a menu offers."""
    menu(page, label).click()
    expect(page.get_by_role("option").first).to_be_visible()
    offered = [text.replace("✓", "").strip() for text in page.get_by_role("option").all_inner_texts()]
    menu(page, label).blur()  # which closes it, and lets the next click open it
    expect(page.get_by_role("option")).to_have_count(0)
    return offered


def choose(page: Page, label: str, option: str) -> None:
    """Chooses the first that has this in its name."""
    menu(page, label).click()
    page.get_by_role("option").filter(has_text=option).first.click()


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")


def contrast(page: Page, selector: str) -> float:
    """WCAG contrast of an element's text against what lies behind it."""
    return page.evaluate(CONTRAST, selector)


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
