"""The Fine-tuning tab in a browser, on real weights: from a table that is uploaded to a repository on the Hub."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from finetune.run import background
from finetune.run.background import command
from finetune.run_folder import all_runs
from shared.settings import Settings
from shared.suite import Suite, serve
from tests.browsing import Open, choose, contrast, fill, menu, opener, overflow, unfold
from tests.finetune.conftest import topics_csv
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv

pytestmark = pytest.mark.browser

TOKEN = "hf_writer"
__all__ = ["topics_csv"]

EVERYTHING_KEPT = """async () => {
  const kept = [JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie, location.href];
  for (const { name } of await indexedDB.databases()) {
    const base = await new Promise((ready) => {
      const asked = indexedDB.open(name); asked.onsuccess = () => ready(asked.result);
    });
    for (const store of base.objectStoreNames) {
      kept.push(await new Promise((ready) => {
        const asked = base.transaction(store).objectStore(store).getAll();
        asked.onsuccess = () => ready(JSON.stringify(asked.result));
      }));
    }
  }
  for (const field of document.querySelectorAll("input, textarea")) kept.push(field.value);
  return kept.join("\\n") + document.documentElement.outerHTML;
}"""


@pytest.fixture
def suite(tmp_path: Path, hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch) -> Iterator[Suite]:
    real = Settings()
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("weights", "converted"):
        (cache / name).symlink_to(real.cache_dir / name)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    running = serve(Settings(port=0, warm_examples=False, cache_dir=cache, spaces=("classification",)), block=False)
    yield running
    running.close()


AT_ONCE = """
import runpy, sys, time
import finetune.run.background
from finetune.run.watch import Watch

def logged_and_held(watch, state, control, logs):
    logged(watch, state, control, logs)
    until = time.monotonic() + 300  # or it would stay behind if the test fails
    while state.global_step == 3 and "--resume" not in sys.argv and time.monotonic() < until:
        if watch.run.stop_file.exists():
            break
        time.sleep(0.05)

logged, Watch.logged = Watch.logged, logged_and_held
finetune.run.background.LOWEST = 0
runpy.run_module("finetune", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def held_after_three_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a training run wait for its stop at the third step, unless it is resumed, so that Stop never comes too late;
    and not give way to all else on this machine, which other tests keep busy."""
    monkeypatch.setattr(
        background, "command", lambda *arguments: [sys.executable, "-c", AT_ONCE, *command(*arguments)[3:]]
    )


@pytest.mark.slow
@pytest.mark.usefixtures("held_after_three_steps")
def test_from_a_table_to_the_hub(
    open_page: Open, suite: Suite, topics_csv: Path, tmp_path: Path, hub: StandInHub, capfd: pytest.CaptureFixture[str]
) -> None:
    page = open_page("?tab=finetune")
    view = page.locator("#finetune-view")
    expect(view).to_contain_text("No run yet")
    unfold(page, "Rows of your own")
    page.locator("#finetune-upload input[type=file]").set_input_files(topics_csv)
    expect(page.locator("#finetune-said")).to_contain_text("Its columns: text, label")
    unfold(page, "Settings")
    expect(page.locator("#finetune-name input")).to_have_value("topics-topics")
    settings = ["training.max_steps=12", "training.batch_size=4", "training.evaluations=2", "data.split.test=0.25"]
    settings += ["evaluation.rows=12", "evaluation.shots=[1]"]

    # What is wrong stands under the form, and the form keeps what it held.
    fill(page, "finetune-more", "training.epoch=1")
    page.locator("#finetune-start").click()
    expect(page.locator("#finetune-said .problem")).to_contain_text("there is no such setting")
    fill(page, "finetune-more", "\n".join(settings))

    # It goes on although its page is closed.
    page.locator("#finetune-start").click()
    expect(view).to_contain_text(re.compile("Preparing|Training"))
    page.context.close()
    page = open_page("?tab=finetune")
    view = page.locator("#finetune-view")
    expect(view).to_contain_text(re.compile(r"Training: step [1-9]"))
    expect(view.locator("svg")).to_be_visible()
    page.locator("#finetune-stop").click()
    expect(view).to_contain_text(re.compile(r"Stopped: step \d+ of 12"))
    (run,) = all_runs(suite.settings)
    assert not run.result.exists()

    # Resumed, measured, offered.
    page.locator("#finetune-resume").click()
    expect(view).to_contain_text("Before and after", timeout=180_000)
    expect(view).to_contain_text("12 held-out rows")
    expect(view).to_contain_text("accuracy on the validation rows")
    expect(page.locator("#finetune-resume")).to_be_disabled()
    page.locator("#suite-tabs").get_by_role("tab", name="Models").click()
    expect(page.locator("#models-report")).to_contain_text("all-MiniLM-L6-v2+topics-topics")
    page.locator("#suite-tabs").get_by_role("tab", name="Fine-tuning").click()

    published(page, hub)
    assert TOKEN not in page.evaluate(EVERYTHING_KEPT)
    assert TOKEN not in "".join(capfd.readouterr())
    assert [path for path in files(tmp_path) if TOKEN.encode() in path.read_bytes()] == []


def fill_in(form: Locator, repo: str) -> None:
    """Fills what is plain HTML: drawn again once its accordion is open, it would be empty."""
    while [form.locator(f"[name={name}]").input_value() for name in ("repo", "token")] != [repo, TOKEN]:
        form.locator("[name=repo]").fill(repo)
        form.locator("[name=token]").fill(TOKEN)


def published(page: Page, hub: StandInHub) -> None:
    unfold(page, "Publish")
    form = page.locator(".publish-form")
    fill_in(form, "no such name")
    form.get_by_role("button").click()
    expect(form.locator("[role=status]")).to_contain_text("must be user/name")
    expect(form.locator("[name=token]")).to_have_value("")
    form.locator("[name=force]").check()
    fill_in(form, "user/own-topics")
    form.get_by_role("button").click()
    expect(form.locator("[role=status]")).to_contain_text(re.compile("done|failed"), timeout=120_000)
    said = form.locator("[role=status]").inner_text()
    assert "published" in said, said
    assert said.strip().endswith("done")
    assert "adapter_model.safetensors" in hub.files("user/own-topics")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


@pytest.mark.slow
def test_an_estimate_can_be_stopped_and_the_page_fits_a_phone(open_page: Open, suite: Suite) -> None:
    page = open_page("?tab=finetune&__theme=dark", 390, 844)
    page.locator("#finetune-estimate").click()
    expect(page.locator("#finetune-said")).to_contain_text("timing a few steps")
    page.locator("#finetune-estimate-stop").click()
    expect(page.locator("#finetune-said")).to_contain_text("Stopped.")
    line = suite.settings.cache_dir / "runs" / "line"
    while list(line.glob("estimate-*")):  # the process that made it is being ended
        page.wait_for_timeout(50)
    choose(page, "Recipe", "robot")
    expect(menu(page, "Batch size")).to_have_value("4")
    assert overflow(page) <= 0
    assert contrast(page, "#finetune-view .empty") >= 4.5
    assert json.loads(page.evaluate("() => JSON.stringify(window.suite.address)"))["tab"] == "finetune"


def test_who_is_not_the_admin_sees_no_runs(browser: Browser, tmp_path: Path) -> None:
    settings = Settings(
        port=0, warm_examples=False, cache_dir=tmp_path, spaces=("classification",), admin=False, allow_training=True
    )
    running = serve(settings, block=False)
    try:
        with opener(browser, running.url) as open_page:
            page = open_page("?tab=finetune")
            expect(page.get_by_text("Training and publishing need the admin token")).to_be_visible()
            page.locator("#finetune-start").click()
            expect(page.locator("#finetune-said .problem")).to_contain_text("Only the admin may do this")
            assert not (tmp_path / "runs").exists()
    finally:
        running.close()


def test_a_public_suite_has_no_such_tab(tmp_path: Path) -> None:
    settings = Settings(host="0.0.0.0", cache_dir=tmp_path)
    assert not settings.training_allowed
    assert Settings(host="0.0.0.0", cache_dir=tmp_path, allow_training=True).training_allowed
