"""What people see: every tab in a real browser against the running suite, with real weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from shared.serving.space import discover
from shared.settings import Settings
from shared.suite import Suite, serve, warm
from tests.browsing import (
    PATIENCE,
    Open,
    ServeSome,
    answered,
    contrast,
    fill,
    overflow,
    served_once,
    unfold,
    wanted_spaces,
)
from tests.test_cancel import Steps

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def serve_some() -> Iterator[ServeSome]:
    def serve_spaces(*names: str) -> Suite:
        some = serve(Settings(port=0, warm_examples=False, spaces=names), block=False)
        warm(discover(names), some.runtime, some.traffic)
        return some

    with served_once(serve_spaces) as serve_some:
        yield serve_some


@pytest.fixture
def suite(request: pytest.FixtureRequest, suite: Suite, serve_some: ServeSome) -> Suite:
    """The whole suite, or one of the Spaces that the test's mark `serves` names."""
    names = wanted_spaces(request)
    return serve_some(*names) if names else suite


def test_first_visit_shows_a_real_answer_and_the_buttons_above_the_fold(open_page: Open, suite: Suite) -> None:
    warm(discover(), suite.runtime, suite.traffic)  # as a suite does after its start
    page = open_page()
    answered(page, "zero_shot")
    expect(page.locator("#zero_shot-result .answer")).to_have_text("health")
    for element in ("zero_shot-text", "zero_shot-run", "zero_shot-result"):
        box = page.locator(f"#{element}").bounding_box()
        assert box is not None
        assert box["y"] < 800
    expect(page.locator(".suite-header")).to_contain_text("profile: auto")
    expect(page.locator(".memory-text")).to_contain_text("MB")


@pytest.mark.serves("classification")
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


@pytest.mark.serves("classification")
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


@pytest.mark.serves("classification")
def test_html_in_a_label_shows_as_text(open_page: Open) -> None:
    page = open_page()
    answered(page, "zero_shot")
    nasty = "<img src=x onerror=document.title='owned'>"
    fill(page, "zero_shot-labels", f"{nasty}, health")
    page.locator("#zero_shot-run").click()
    expect(page.locator("#zero_shot-result")).to_contain_text(nasty)
    assert page.locator("#zero_shot-result img").count() == 0
    assert page.title() != "owned"


@pytest.mark.serves("classification")
def test_zero_one_and_few_stand_side_by_side(open_page: Open) -> None:
    page = open_page("?tab=classification&form=few_shot")
    page.locator("#few_shot-run").click()
    expect(page.locator("#few_shot-result .side section")).to_have_count(3, timeout=PATIENCE)
    answered(page, "few_shot")
    expect(page.locator("#few_shot-result h3").nth(2)).to_contain_text("Few-shot")
    page.get_by_role("button", name="What happened").locator("visible=true").click()
    expect(page.locator(".what pre").locator("visible=true").first).to_contain_text("Label:")


@pytest.mark.serves("summarization")
def test_an_example_runs_in_one_click(open_page: Open) -> None:
    page = open_page("?tab=summarization")
    answered(page, "summarize")
    page.get_by_role("button", name="Dialogue: a lost suitcase").click()
    expect(page.locator("#summarize-result")).to_contain_text("Clara:")
    expect(page.get_by_label("Dialogue", exact=True)).to_be_checked()
    page.get_by_role("button", name="What happened").locator("visible=true").click()
    expect(page.locator(".what mark").locator("visible=true").first).to_be_visible()


@pytest.mark.serves("translation")
def test_translation_with_swap_and_alignment(open_page: Open) -> None:
    page = open_page("?tab=translation")
    answered(page, "translate")
    expect(page.get_by_role("button", name="A feira de domingo")).to_be_visible()
    expect(page.get_by_role("button", name="Box of chocolates")).to_have_count(0)  # their models are on a Hub
    page.locator("#translate-swap").click()
    expect(page.get_by_label("From")).to_have_value("Portuguese (pt)")
    fill(page, "translate-text", "A casa é grande. O cachorro é pequeno.")
    page.locator("#translate-run").click()
    expect(page.locator("#translate-result")).to_contain_text("house")
    page.get_by_role("button", name="What happened").locator("visible=true").click()
    expect(page.locator(".what tbody tr").locator("visible=true")).to_have_count(2)


@pytest.mark.serves("translation")
def test_a_wrong_source_language_is_said(open_page: Open) -> None:
    page = open_page(
        "?tab=translation&form=translate&text=" + quote("Das Haus ist groß und der Hund schläft im Garten.")
    )
    page.locator("#translate-run").click()
    expect(page.locator("#translate-account .note")).to_contain_text("German")


@pytest.mark.serves("generation")
def test_generation_streams_and_stop_stops(open_page: Open, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    page = open_page("?tab=generation&form=generate&max_new_tokens=900&prompt=" + quote("Count: one, two, three,"))
    expect(page.locator("#generate-result")).to_contain_text("Press the button")
    hold_the_lane(page, suite, monkeypatch, free=8)
    page.locator("#generate-run").click()
    expect(page.locator("#generate-result .t").nth(3)).to_be_visible()
    page.locator("#generate-stop").click()
    expect(page.locator("#generate-account")).to_contain_text("Stopped")
    expect(page.locator("#generate-run")).to_be_enabled()
    nothing_is_on_its_way(page)
    said = page.locator("#generate-result .t").count()
    assert 3 < said < 900


def nothing_is_on_its_way(page: Page) -> None:
    """Waits until nothing is computed any more, and longer than a heartbeat."""
    page.wait_for_function(
        "async () => (await (await fetch('health')).json()).requests.running === 0", timeout=PATIENCE
    )
    page.wait_for_timeout(700)


def hold_the_lane(page: Page, suite: Suite, monkeypatch: pytest.MonkeyPatch, free: int = 0) -> None:
    """After the `free` next ones a step waits until its request is cancelled, so that Stop never comes too late."""
    warm(discover(), suite.runtime, suite.traffic)  # or the page, which asks for them, would take the free steps
    nothing_is_on_its_way(page)
    monkeypatch.setattr(suite.runtime.lane, "submit", Steps(suite.runtime, free).submit)


@pytest.mark.serves("generation")
def test_stop_ends_a_reply_and_the_chat_goes_on_from_there(
    open_page: Open, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = quote("Count from one to three hundred, in words, separated by commas.")
    page = open_page(f"?tab=generation&form=chat&max_new_tokens=900&message={count}")
    expect(page.locator("#chat-message textarea")).to_have_value(re.compile("Count"))
    run, stop, said = page.locator("#chat-run"), page.locator("#chat-stop"), page.locator("#chat-result .said")
    hold_the_lane(page, suite, monkeypatch, free=8)
    run.click()
    expect(said.nth(1)).to_have_text(re.compile(r"\S{2}"))
    stop.click()
    expect(page.locator("#chat-account")).to_have_text("Stopped. What was there so far is kept.")
    expect(run).to_be_enabled()
    kept = said.all_inner_texts()
    nothing_is_on_its_way(page)
    expect(run).to_be_enabled(timeout=1)
    expect(stop).to_be_disabled(timeout=1)
    assert said.all_inner_texts() == kept
    assert len(kept) == 2
    fill(page, "chat-message", "Go on.")
    monkeypatch.undo()
    # After a single word: one that goes on from a few words may itself be of a few, and end before Stop is pressed.
    hold_the_lane(page, suite, monkeypatch, free=1)
    run.click()
    expect(said.nth(3)).to_have_text(re.compile(r"\S"))  # what is drawn is the history
    stop.click()
    expect(page.locator("#chat-account")).to_contain_text("Stopped")
    expect(run).to_be_enabled()
    assert said.all_inner_texts()[:3] == [*kept, "Go on."]


@pytest.mark.slow
@pytest.mark.serves("generation")
def test_a_reply_can_be_stopped_before_its_first_word(
    open_page: Open, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page("?tab=generation&form=chat&message=" + quote("Tell me a joke."))
    expect(page.locator("#chat-message textarea")).to_have_value("Tell me a joke.")
    hold_the_lane(page, suite, monkeypatch)
    page.locator("#chat-run").click()
    expect(page.locator("#chat-result .waiting")).to_be_visible()
    page.locator("#chat-stop").click()
    expect(page.locator("#chat-account")).to_contain_text("Stopped")
    expect(page.locator("#chat-run")).to_be_enabled()
    nothing_is_on_its_way(page)
    expect(page.locator("#chat-stop")).to_be_disabled(timeout=1)
    expect(page.locator("#chat-result .turn, #chat-result .waiting")).to_have_count(0, timeout=1)
    expect(page.locator("#chat-message textarea")).to_have_value("Tell me a joke.", timeout=1)


@pytest.mark.serves("generation")
@pytest.mark.slow
def test_a_new_chat_ends_the_reply_under_way(open_page: Open, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    page = open_page("?tab=generation&form=chat&max_new_tokens=900&message=" + quote("Tell me a long story."))
    expect(page.locator("#chat-message textarea")).to_have_value("Tell me a long story.")
    hold_the_lane(page, suite, monkeypatch, free=8)
    page.locator("#chat-run").click()
    expect(page.locator("#chat-result .said").nth(1)).to_have_text(re.compile(r"\w+"))
    page.locator("#chat-clear").click()
    expect(page.locator("#chat-result .turn")).to_have_count(0)
    expect(page.locator("#chat-run")).to_be_enabled()
    nothing_is_on_its_way(page)
    expect(page.locator("#chat-result .turn")).to_have_count(0, timeout=1)
    expect(page.locator("#chat-account")).to_have_text("", timeout=1)


@pytest.mark.serves("generation")
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


@pytest.mark.serves("generation")
def test_a_link_restores_a_chat_and_its_call_is_printed(open_page: Open) -> None:
    page = open_page("?tab=generation&form=chat&max_new_tokens=9&message=" + quote("Tell me a joke."))
    expect(page.locator("#chat-message textarea")).to_have_value("Tell me a joke.")
    page.get_by_role("button", name="Call it from a program").locator("visible=true").click()
    shown = page.locator(".snippet pre").locator("visible=true").first
    expect(shown).to_contain_text("message='Tell me a joke.'")
    expect(shown).to_contain_text("max_new_tokens=9")
    expect(shown).to_contain_text('api_name="/chat"')


@pytest.mark.serves("generation")
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


@pytest.mark.serves("classification")
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


@pytest.mark.slow
@pytest.mark.serves("classification")
def test_stop_ends_a_batch_and_what_was_on_its_way_does_not_undo_it(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("tab", name="Sentiment").click()
    unfold(page, "Batch")
    run, stop = page.locator("#sentiment-batch-run"), page.locator("#sentiment-batch-stop")
    answered(page, "sentiment")
    fill(page, "sentiment-batch-lines", "\n".join(f"The {n}th film was long and I liked it." for n in range(600)))
    run.click()
    result = page.locator("#sentiment-batch-result")
    expect(result.locator("tbody tr")).not_to_have_count(0)
    stop.click()
    expect(result).to_contain_text("Stopped. What was there so far is kept.")
    expect(run).to_be_enabled()
    kept = result.inner_text()
    nothing_is_on_its_way(page)
    expect(run).to_be_enabled(timeout=1)
    expect(stop).to_be_disabled(timeout=1)
    assert result.inner_text() == kept
    assert re.search(r"\d rows answered", kept)
    assert "600 rows" not in kept
    fill(page, "sentiment-batch-lines", "I loved it.")
    run.click()
    expect(result).to_contain_text(re.compile("^(?!.*Stopped).*1 rows answered", re.S))
    expect(run).to_be_enabled()


@pytest.mark.serves("classification")
@pytest.mark.slow
def test_a_batch_can_be_stopped_before_its_first_rows(
    open_page: Open, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page("?tab=classification&form=sentiment")
    answered(page, "zero_shot")
    unfold(page, "Batch")
    fill(page, "sentiment-batch-lines", "I loved it.\nIt was awful.")
    hold_the_lane(page, suite, monkeypatch)
    page.locator("#sentiment-batch-run").click()
    expect(page.locator("#sentiment-batch-result .waiting")).to_be_visible()
    page.locator("#sentiment-batch-stop").click()
    expect(page.locator("#sentiment-batch-result")).to_have_text("Stopped before there was a result.")
    expect(page.locator("#sentiment-batch-run")).to_be_enabled()
    expect(page.locator("#sentiment-batch-stop")).to_be_disabled()
    nothing_is_on_its_way(page)
    expect(page.locator("#sentiment-batch-result")).to_have_text("Stopped before there was a result.", timeout=1)


@pytest.mark.serves("translation", "reading")
@pytest.mark.slow
def test_a_link_restores_tab_and_inputs_and_the_address_follows_them(open_page: Open) -> None:
    page = open_page("?tab=translation&form=translate&src_lang=pt&tgt_lang=en&text=" + quote("Bom dia, Ana!"))
    expect(page.locator("#translate-text textarea")).to_have_value("Bom dia, Ana!")
    expect(page.get_by_label("From")).to_have_value("Portuguese (pt)")
    page.locator("#translate-text textarea").click()
    fill(page, "translate-text", "Boa noite.")
    page.wait_for_function("() => location.search.includes('Boa')")
    again = open_page("?" + page.url.split("?", 1)[1])
    expect(again.locator("#translate-text textarea")).to_have_value("Boa noite.")


@pytest.mark.slow
def test_hostile_links_are_skipped_not_shown(open_page: Open) -> None:
    page = open_page(
        "?tab=nowhere&form=generate&temperature=1e9&top_k=[1]&seed=null&model=evil&prompt=" + quote("<b>x")
    )
    answered(page, "zero_shot")
    page.get_by_role("tab", name="Text generation").click()
    expect(page.locator("#generate-prompt textarea")).to_have_value("<b>x")
    page.locator("button.label-wrap", has_text="Settings").locator("visible=true").click()
    expect(page.get_by_label("number input for Temperature").locator("visible=true")).to_have_value("0.7")


@pytest.mark.serves("translation")
def test_snippets_hold_the_visitors_inputs(open_page: Open, suite: Suite) -> None:
    page = open_page("?tab=translation")
    answered(page, "translate")
    fill(page, "translate-text", "It's a test.")
    page.get_by_role("button", name="Call it from a program").locator("visible=true").click()
    shown = page.locator(".snippet pre").locator("visible=true")
    expect(shown).to_have_count(3)
    expect(shown.first).to_contain_text('"It\'s a test."')
    expect(shown.first).to_contain_text(suite.url.rstrip("/"))


@pytest.mark.serves("translation")
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


@pytest.mark.parametrize(
    ("tab", "endpoint"),
    [
        pytest.param("classification", "zero_shot", marks=pytest.mark.serves("classification")),
        pytest.param("summarization", "summarize", marks=pytest.mark.serves("summarization")),
        pytest.param("translation", "translate", marks=pytest.mark.serves("translation")),
        pytest.param("generation", "generate", marks=pytest.mark.serves("generation")),
    ],
)
@pytest.mark.slow
def test_nothing_overflows_on_a_phone(open_page: Open, tab: str, endpoint: str) -> None:
    page = open_page(f"?tab={tab}", 390, 844)
    answered(page, endpoint)
    assert overflow(page) <= 0


@pytest.mark.slow
def test_the_models_of_all_spaces_overflow_no_phone(open_page: Open) -> None:
    page = open_page("?tab=models", 390, 844)
    expect(page.locator("#models-report tbody tr").first).to_be_visible()
    expect(page.locator(".memory-text")).to_contain_text("MB")
    assert overflow(page) <= 0


@pytest.mark.serves("classification")
def test_dark_mode_has_readable_text(open_page: Open) -> None:
    page = open_page("?__theme=dark")
    answered(page, "zero_shot")
    assert contrast(page, "#zero_shot-result .shown") >= 4.5
    assert contrast(page, "#zero_shot-account .run-line") >= 4.5


@pytest.mark.serves("classification")
def test_light_mode_has_readable_text(open_page: Open) -> None:
    page = open_page("?__theme=light")
    answered(page, "zero_shot")
    for selector in ("#zero_shot-result .shown", "#zero_shot-account .run-line", ".suite-header a", "#zero_shot-run"):
        assert contrast(page, selector) >= 4.5, selector
