"""What people see of adapters: the picker, the note on what was chosen, base and adapted answers side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import peft
import pytest
from playwright.sync_api import Page, expect

from shared.settings import Settings
from shared.suite import Suite, serve
from tests.browsing import Open, answered, choose, fill, options, overflow, unfold
from tests.tiny_adapters import classifier_adapter, write_metadata

pytestmark = pytest.mark.browser

MINILM = "all-MiniLM-L6-v2"
SPACES = ("classification", "generation")
LABELS = ["business", "sport", "tech"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    real = Settings()
    cache = tmp_path_factory.mktemp("cache")
    for name in ("weights", "converted"):
        (cache / name).symlink_to(real.cache_dir / name)
    topics(cache / "adapters" / "topics", "Topics of news")
    running = serve(
        Settings(port=0, warm_examples=False, cache_dir=cache, profile="embedded", spaces=SPACES), block=False
    )
    yield running
    running.close()


def topics(folder: Path, title: str) -> Path:
    (minilm,) = Settings().weights_dir.glob(f"{MINILM}@*")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
    classifier_adapter(minilm, folder, config, len(LABELS))
    write_metadata(
        folder, checkpoint=MINILM, title=title, task="text-classification", labels=LABELS, example="Shares fell."
    )
    (folder / "evaluation.json").write_text('{"metric": "accuracy", "base": 0.72, "tuned": 0.96}', encoding="utf-8")
    return folder


def chosen(page: Page) -> None:
    """Opens the settings of zero-shot and chooses the adapter."""
    answered(page, "zero_shot")
    expect(page.locator("#zero_shot-compare")).to_be_hidden()
    unfold(page, "Settings")
    choose(page, "Model", "Topics of news")
    expect(page.locator("#zero_shot-adapter")).to_contain_text("accuracy 0.96 (base 0.72)")


def test_an_adapter_is_chosen_and_compared_with_its_base(open_page: Open) -> None:
    page = open_page()
    chosen(page)
    expect(page.locator("#zero_shot-labels textarea")).to_have_value("business, sport, tech")
    fill(page, "zero_shot-text", "The striker scored twice.")
    page.locator("#zero_shot-run").click()
    expect(page.locator("#zero_shot-account")).to_contain_text(re.compile(r"(torch|compiled)-(int8|fp32) \+ LoRA"))
    expect(page.locator("#zero_shot-account")).to_contain_text("topics @")
    expect(page.locator("#zero_shot-result section")).to_have_count(0)
    page.get_by_label("Compare with the base").locator("visible=true").check()
    page.locator("#zero_shot-run").click()
    columns = page.locator("#zero_shot-result section")
    expect(columns).to_have_count(2)
    expect(columns.nth(0)).to_contain_text("Base")
    expect(columns.nth(1)).to_contain_text("Topics of news")
    answered(page, "zero_shot")
    expect(columns.nth(0).locator(".run-line")).not_to_contain_text("LoRA")
    expect(columns.nth(1).locator(".run-line")).to_contain_text("LoRA")
    left, right = columns.nth(0).bounding_box(), columns.nth(1).bounding_box()
    assert left
    assert right
    assert left["x"] + left["width"] <= right["x"], "side by side"
    assert abs(left["y"] - right["y"]) < 2
    page.set_viewport_size({"width": 390, "height": 844})
    first, second = columns.nth(0).bounding_box(), columns.nth(1).bounding_box()
    assert first
    assert second
    assert first["y"] + first["height"] <= second["y"], "on a phone one stands under the other"
    assert overflow(page) <= 0
    page.set_viewport_size({"width": 1280, "height": 800})
    # The base again: nothing to compare, nothing left of the adapter.
    choose(page, "Model", f"{MINILM} (")
    expect(page.locator("#zero_shot-compare")).to_be_hidden()
    page.locator("#zero_shot-run").click()
    expect(columns).to_have_count(0)
    expect(page.locator("#zero_shot-account")).not_to_contain_text("LoRA")


@pytest.mark.slow
def test_added_and_removed_on_the_models_tab(open_page: Open, tmp_path: Path) -> None:
    folder = topics(tmp_path / "mine", "<b>Mine</b>")
    page = open_page("?tab=models")
    fill(page, "models-wanted-adapter", str(tmp_path / "nothing"))
    page.locator("#models-add-adapter").click()
    expect(page.locator("#models-said")).to_contain_text("There is no folder")
    fill(page, "models-wanted-adapter", str(folder))
    page.locator("#models-add-adapter").click()
    expect(page.locator("#models-said")).to_contain_text("<b>Mine</b> was added: LoRA, rank 4 on all-MiniLM-L6-v2")
    row = page.locator("#models-report tr", has_text="+mine")
    expect(row).to_contain_text("<b>Mine</b>")
    choose(page, "Checkpoint", "+mine")
    page.locator("#models-load").click()
    expect(row).to_contain_text("loaded")
    fresh = open_page()
    answered(fresh, "zero_shot")
    unfold(fresh, "Settings")
    assert f"<b>Mine</b> (on {MINILM})" in options(fresh, "Model")
    page.locator("#models-remove").click()
    expect(page.locator("#models-said")).to_contain_text("mine is no longer offered")
    expect(row).to_have_count(0)


@pytest.mark.slow
def test_a_chat_shows_both_replies(open_page: Open, suite: Suite, tmp_path: Path) -> None:
    from tests.shared.checkpoints.test_adapters import language_model

    folder = language_model(tmp_path / "curt", checkpoint="SmolLM2-135M-Instruct", title="Curt", task="conversational")
    suite.runtime.adapters.add(suite.runtime.adapters.read(str(folder)))
    page = open_page("?tab=generation&form=chat&max_new_tokens=8")
    expect(page.locator("#chat-message textarea")).to_be_visible()  # or the other form's settings are unfolded
    unfold(page, "Settings")
    choose(page, "Model", "Curt")
    page.get_by_label("Compare with the base").locator("visible=true").check()
    fill(page, "chat-message", "Say hello.")
    page.locator("#chat-run").click()
    columns = page.locator("#chat-result section")
    expect(columns).to_have_count(2)
    answered(page, "chat")
    expect(columns.nth(0)).to_contain_text("Base")
    expect(columns.nth(1)).to_contain_text("Curt")
    expect(columns.nth(1).locator(".run-line")).to_contain_text("curt @")
