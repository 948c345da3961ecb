"""Pictures for README and docs/TOUR.md, of the running suite with real answers in them: `make screenshots`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from benchmarks import ROOT
from benchmarks.lifecycle import suite
from benchmarks.report import say

FOLDER = ROOT / "docs" / "screenshots"
DESKTOP = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=390, height=844)
LARGEST = 150_000
"""Bytes of one picture; a larger one is stored with a palette."""
ANSWER_SECONDS = 240.0

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def answered(endpoint: str, *, press: bool = False) -> Callable[[Page], None]:
    """Waits for the endpoint's answer: RunInfo is there and the button can be pressed again."""

    def ready(page: Page) -> None:
        button = page.locator(f"#{endpoint}-run")
        if press:
            button.wait_for(timeout=60_000)
            # A click before Gradio has connected the page would be lost: first its load events have to have answered.
            page.locator(f"#{endpoint}-result .empty", has_not_text="being computed").wait_for(timeout=60_000)
            header_filled(page)
            button.click()
        page.locator(f"#{endpoint}-account .run-line b").wait_for(timeout=1000 * ANSWER_SECONDS)
        page.locator(f"#{endpoint}-run:not([disabled])").wait_for(timeout=1000 * ANSWER_SECONDS)
        problem = page.locator(f"#{endpoint}-result .problem")
        if problem.count():
            raise RuntimeError(f"{endpoint} answered with an error: {problem.first.inner_text()}")

    return ready


def header_filled(page: Page) -> None:
    """The header's memory line is asked for a little after the page was drawn, and then every few seconds."""
    page.wait_for_function("document.querySelector('.suite-header .memory-text')?.textContent", timeout=20_000)


def models_listed(page: Page) -> None:
    # A fresh page draws the report as it was when the server started.
    page.locator("#models-refresh").click(timeout=60_000)
    page.locator("#models-report", has_text="SmolLM2-135M-Instruct").wait_for(timeout=60_000)


@dataclass(frozen=True)
class Picture:
    name: str
    query: str
    ready: Callable[[Page], None]
    phone: bool = False
    dark: bool = False


PICTURES = (
    Picture("classification", "?tab=classification", answered("zero_shot")),
    Picture("few-shot", "?tab=classification&form=few_shot", answered("few_shot", press=True)),
    Picture("reading", "?tab=reading", answered("answer_question")),
    Picture("summarization", "?tab=summarization", answered("summarize")),
    Picture("translation", "?tab=translation", answered("translate")),
    Picture("generation", "?tab=generation", answered("generate")),
    Picture("chat", "?tab=generation&form=chat", answered("chat", press=True)),
    Picture("next-token", "?tab=generation&form=next_token", answered("next_token", press=True)),
    Picture("audio_genre", "?tab=audio_genre", answered("audio_genre")),
    Picture("models", "?tab=models", models_listed),
    Picture("phone", "?tab=classification", answered("zero_shot"), phone=True),
    Picture("dark", "?tab=classification&__theme=dark", answered("zero_shot"), dark=True),
)


def take(browser: Browser, url: str, picture: Picture, folder: Path) -> None:
    context = browser.new_context(
        viewport=PHONE if picture.phone else DESKTOP,
        device_scale_factor=1,
        color_scheme="dark" if picture.dark else "light",
    )
    try:
        page = context.new_page()
        page.goto(f"{url}/{picture.query}")
        picture.ready(page)
        page.evaluate("document.activeElement?.blur(); window.scrollTo(0, 0)")
        header_filled(page)
        page.wait_for_timeout(800)  # bars grow to their length
        path = folder / f"{picture.name}.png"
        page.screenshot(path=path)
        if path.stat().st_size > LARGEST:
            with_palette(path)
        say(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    finally:
        context.close()


def with_palette(path: Path) -> None:
    """Flat areas of colour lose nothing that shows in 256 colours, and the file is a third as large."""
    from PIL import Image

    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(256)
    reduced.save(path, optimize=True)


def executable() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise SystemExit(
            f"error: none of {', '.join(BROWSERS)} is installed; on Debian and Ubuntu: apt install chromium"
        )
    return found


def main(
    only: Annotated[str, typer.Option(help="One picture by name; empty takes all.")] = "",
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = FOLDER,
) -> None:
    """Takes the documents' pictures from a suite that it starts."""
    chromium = executable()
    wanted = [picture for picture in PICTURES if only in ("", picture.name)]
    if not wanted:
        raise SystemExit(f"error: no picture is called {only}; there are {', '.join(p.name for p in PICTURES)}")
    folder.mkdir(parents=True, exist_ok=True)
    with suite(warm=True) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        try:
            for picture in wanted:
                take(browser, server.url, picture, folder)
        finally:
            browser.close()


if __name__ == "__main__":
    typer.run(main)
