"""Chromium on a suite's page, for tests of what people see."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, Request, WebSocket, expect, sync_playwright

from shared.suite import Suite

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
ServeSome = Callable[..., Suite]


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser, suite: Suite) -> Iterator[Open]:
    """`open_page(query, width, height)`: the page of the file's `suite`."""
    with opener(browser, suite.url) as open_page:
        yield open_page


@contextmanager
def served_once(serve_spaces: ServeSome) -> Iterator[ServeSome]:
    """`serve_some("translation")`: what `serve_spaces` serves, once for all who ask, until the end of the block.

    A page of all Spaces takes three times as long to open as one of a single Space.
    """
    with ExitStack() as running:
        yield cache(lambda *names: running.enter_context(closing(serve_spaces(*names))))


def wanted_spaces(test: pytest.FixtureRequest) -> tuple[str, ...]:
    """The Spaces in the test's mark `serves`; none for all."""
    mark = test.node.get_closest_marker("serves")
    return mark.args if mark else ()


@contextmanager
def opener(browser: Browser, url: str) -> Iterator[Open]:
    """`open_page(query, width, height)`: the suite's page. At the end: no foreign host asked, no script error.

    The first page of a test is opened in the window of the test before, whose storage was emptied: it takes half the
    time that it takes in a new one. Further pages get windows of their own.
    """
    foreign: list[str] = []
    broken: list[str] = []
    pages: list[Page] = []
    host = urlparse(url).netloc

    def note_foreign(asked: Request | WebSocket) -> None:
        if asked.url.startswith(("http", "ws")) and urlparse(asked.url).netloc != host:
            foreign.append(asked.url)

    def note_broken(error: Error) -> None:
        broken.append(str(error))

    noted = {"request": note_foreign, "websocket": note_foreign, "pageerror": note_broken}

    def open_(query: str = "", width: int = 1280, height: int = 800) -> Page:
        context = browser.contexts[0] if browser.contexts else browser.new_context(reduced_motion="reduce")
        page = context.pages[0] if context.pages and not pages else context.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(PATIENCE)
        for event, note in noted.items():
            page.on(event, note)  # type: ignore[call-overload]
        page.goto(url + query)
        page.wait_for_selector("#suite-tabs")
        return page

    yield open_
    for page in [page for page in pages if not page.is_closed()]:
        for event, note in noted.items():
            page.remove_listener(event, note)
        page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
        page.context.clear_cookies()
        if page is page.context.pages[0]:
            page.goto("about:blank")  # which ends what it was still waiting for
        else:
            page.close()
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
    """Chooses the first that has this in its name. A menu that is open does not change: it is opened until it has it,
    because a page asks only once it is there what can be chosen."""
    wanted = page.get_by_role("option").filter(has_text=option).first
    for _ in range(PATIENCE // 1000):
        menu(page, label).click()
        expect(page.get_by_role("option").first).to_be_visible()
        if wanted.is_visible():
            break
        menu(page, label).blur()
        page.wait_for_timeout(200)
    wanted.click()


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
