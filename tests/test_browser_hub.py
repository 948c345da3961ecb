"""What people see with a Hub at hand, and with one that does not answer. The checkpoints are tiny and untrained."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect
from transformers import AutoTokenizer

from shared.settings import Settings
from shared.suite import Suite, serve
from tests.browsing import (
    Open,
    ServeSome,
    answered,
    choose,
    contrast,
    fill,
    menu,
    opener,
    options,
    overflow,
    served_once,
    unfold,
    wanted_spaces,
)
from tests.course_hub import Course, course
from tests.stand_in_hub.fixtures import turn_clients_to

pytestmark = pytest.mark.browser

BERT, MARIAN, FLAN = "google-bert/bert-base-uncased", "Helsinki-NLP/opus-mt-en-es", "google/flan-t5-small"
DIALOGPT, SST2 = "microsoft/DialoGPT-medium", "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
MNLI, SMOLLM = "FacebookAI/roberta-large-mnli", "HuggingFaceTB/SmolLM2-135M-Instruct"
MASKED = "?tab=reading&form=fill_mask&text=" + quote("Paris is the capital of [MASK].")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    with course(tmp_path_factory.mktemp("course")) as taught:
        yield taught


@pytest.fixture(scope="module")
def serve_some(taught: Course) -> Iterator[ServeSome]:
    with served_once(taught.serve_beside) as serve_some:
        yield serve_some


@pytest.fixture
def suite(request: pytest.FixtureRequest, taught: Course, serve_some: ServeSome) -> Iterator[Suite]:
    """The whole suite, or one of the Spaces that the test's mark `serves` names."""
    names = wanted_spaces(request)
    yield serve_some(*names) if names else taught.suite
    taught.hub.faults.clear()


def agree(page: Page, endpoint: str) -> None:
    """Waits for the question and agrees."""
    page.locator(f"#{endpoint}-consent").click()


# -- the question ------------------------------------------------------------------------------------


def test_opening_the_page_asks_the_hub_and_fetches_nothing(open_page: Open, taught: Course) -> None:
    page = open_page(MASKED)
    expect(page.locator(".suite-header")).to_contain_text("profile: auto (the Hub answers)")
    expect(page.locator("#fill_mask-result")).to_contain_text("Press the button")
    assert taught.hub.sent("/storage/") == 0


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
@pytest.mark.serves("reading")
@pytest.mark.slow
def test_the_question_is_readable(open_page: Open, theme: str, width: int) -> None:
    page = open_page(f"{MASKED}&__theme={theme}", width, 844)
    page.locator("#fill_mask-run").click()
    expect(page.locator("#fill_mask-consent")).to_be_visible()
    assert overflow(page) <= 0
    for selector in ("#fill_mask-result .note", "#fill_mask-result .note b", "#fill_mask-consent"):
        assert contrast(page, selector) >= 4.5, selector
    question, button = (
        page.locator("#fill_mask-result").bounding_box(),
        page.locator("#fill_mask-consent").bounding_box(),
    )
    assert question is not None
    assert button is not None
    assert 0 <= button["y"] - (question["y"] + question["height"]) < 40


@pytest.mark.serves("reading")
def test_a_download_is_asked_for_shown_stopped_and_finished(open_page: Open, taught: Course) -> None:
    page = open_page(MASKED)
    result, stop = page.locator("#fill_mask-result"), page.locator("#fill_mask-stop")
    expect(menu(page, "Model")).to_have_value(re.compile(r"MB to fetch"))
    page.locator("#fill_mask-run").click()
    expect(result).to_contain_text(f"This needs {BERT}, which is on the Hub: about 2 MB to fetch, once.")
    expect(page.locator("#fill_mask-consent")).to_have_text("Fetch it (2 MB) and go on")
    expect(page.locator("#fill_mask-run")).to_be_enabled()
    expect(stop).to_be_disabled()
    assert taught.hub.sent("/storage/") == 0

    taught.hub.faults.slow("/storage/", bytes_per_second=20_000)
    agree(page, "fill_mask")
    expect(result).to_contain_text(re.compile(rf"Loading {BERT}: fetching at .*0\.\d of 0\.\d MB"))
    expect(page.locator("#fill_mask-consent")).to_be_hidden()
    stop.click()
    expect(result).to_contain_text("Stopped before there was a result")
    expect(page.locator("#fill_mask-run")).to_be_enabled()
    settled(taught)
    expect(result).to_contain_text("Stopped before there was a result")
    expect(page.locator("#fill_mask-text textarea")).to_have_value("Paris is the capital of [MASK].")

    taught.hub.faults.clear()
    page.locator("#fill_mask-run").click()
    agree(page, "fill_mask")
    answered(page, "fill_mask")
    expect(result.locator(".bar")).to_have_count(8)
    expect(result.locator("mark")).to_have_count(1)
    expect(page.locator("#fill_mask-account")).to_contain_text(BERT)
    expect(menu(page, "Model")).not_to_have_value(re.compile("to fetch"))  # it is here now

    fill(page, "fill_mask-text", "The [MASK] is near the [MASK].")
    page.locator("#fill_mask-run").click()
    expect(result.locator(".bar")).to_have_count(16)
    expect(page.locator("#fill_mask-consent")).to_be_hidden()


def settled(taught: Course) -> None:
    """Waits until the Hub sends no more, although it has more to send."""
    until = time.monotonic() + 30
    before = -1
    while (now := taught.hub.sent("/storage/")) != before:
        assert time.monotonic() < until, "the download goes on after Stop"
        before = now
        time.sleep(0.6)
    assert 0 < now < len(taught.hub.files(BERT)["model.safetensors"])


# -- translation -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.serves("translation")
def test_translation_into_a_language_of_the_hub(open_page: Open) -> None:
    page = open_page("?tab=translation")
    answered(page, "translate")
    assert {"Detect the language", "English (en)", "Hindi (hi)", "Yiddish (yi)"} <= set(options(page, "From"))
    assert {"Hindi (hi)", "Spanish (es)", "Portuguese (pt)"} <= set(options(page, "To"))
    choose(page, "To", "Spanish (es)")
    fill(page, "translate-text", "The sea is near.")
    page.locator("#translate-run").click()
    expect(page.locator("#translate-result")).to_contain_text(f"This needs {MARIAN}")
    agree(page, "translate")
    expect(page.locator("#translate-account")).to_contain_text(MARIAN)
    answered(page, "translate")
    # What an untrained model writes, if anything.
    expect(page.locator("#translate-result")).to_have_text(re.compile(r"\w.*Copy", re.S))


@pytest.mark.serves("translation")
def test_an_example_for_a_pair_of_the_hub_asks_before_it_fetches(open_page: Open) -> None:
    page = open_page("?tab=translation")
    answered(page, "translate")
    expect(page.locator("#translate-text textarea")).to_have_value(re.compile("Every morning I walk"))
    page.get_by_role("button", name="Box of chocolates: Hindi to French").click()
    expect(page.locator("#translate-result")).to_contain_text("This needs alirezamsh/small100")
    expect(menu(page, "From")).to_have_value("Hindi (hi)")
    expect(menu(page, "To")).to_have_value("French (fr)")


@pytest.mark.serves("translation")
def test_a_language_is_detected_for_a_pair_that_is_here(open_page: Open) -> None:
    page = open_page(
        "?tab=translation&form=translate&src_lang=auto&tgt_lang=pt&text=" + quote("Good morning, my friend!")
    )
    expect(menu(page, "From")).to_have_value("Detect the language")
    expect(menu(page, "To")).to_have_value("Portuguese (pt)")
    page.locator("#translate-run").click()
    expect(page.locator("#translate-result")).to_contain_text("Bom dia")
    expect(page.locator("#translate-account")).to_contain_text("English (en)")


# -- models ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.serves("classification")
def test_a_menu_says_what_a_choice_would_fetch(open_page: Open) -> None:
    page = open_page("?tab=classification&form=sentiment")
    offered = options(page, "Model")
    assert next(option for option in offered if option.startswith("SmolLM2-135M")) == "SmolLM2-135M-Instruct (135 M)"
    assert re.search(r"MB to fetch\)", next(option for option in offered if option.startswith(SST2)))
    choose(page, "Model", SST2)
    fill(page, "sentiment-text", "What a film!")
    page.locator("#sentiment-run").click()
    agree(page, "sentiment")
    answered(page, "sentiment")
    expect(page.locator("#sentiment-account")).to_contain_text(SST2)


@pytest.mark.serves("classification")
@pytest.mark.slow
def test_a_model_of_the_hub_is_added_by_its_id(open_page: Open) -> None:
    page = open_page("?tab=models")
    expect(page.locator("#models-report .elsewhere table")).to_be_hidden()
    page.locator("#models-report summary").click()
    expect(page.locator("#models-report .elsewhere tr", has_text="google-t5/t5-base")).to_contain_text("the Hub")
    fill(page, "models-wanted", "user/nothing-of-that-name")
    page.locator("#models-add").click()
    expect(page.locator("#models-said [role=alert]")).to_contain_text("no repository user/nothing-of-that-name")
    expect(page.locator("#models-wanted input, #models-wanted textarea").first).to_have_value(
        "user/nothing-of-that-name"
    )
    fill(page, "models-wanted", "user/bart-order-mnli")
    page.locator("#models-add").click()
    expect(page.locator("#models-said")).to_contain_text("was added, for zero-shot-classification")
    expect(menu(page, "Checkpoint")).to_have_value("user/bart-order-mnli")
    page = open_page("?tab=classification")
    answered(page, "zero_shot")
    unfold(page, "Settings")
    assert any(option.startswith("user/bart-order-mnli") for option in options(page, "Model"))


@pytest.mark.slow
@pytest.mark.serves("translation")
def test_loading_from_the_models_tab_can_be_stopped(open_page: Open, taught: Course) -> None:
    page = open_page("?tab=models")
    expect(page.locator("#models-report")).to_contain_text("more that are not on this machine")
    choose(page, "Checkpoint", "google-t5/t5-small")
    taught.hub.faults.slow("/storage/", bytes_per_second=20_000)
    page.locator("#models-load").click()
    expect(page.locator("#models-said")).to_contain_text("google-t5/t5-small: fetching")
    page.locator("#models-stop").click()
    expect(page.locator("#models-stop")).to_be_disabled()
    expect(page.locator("#models-said")).to_have_text("")
    taught.hub.faults.clear()
    page.locator("#models-load").click()
    expect(page.locator("#models-report tr", has_text="google-t5/t5-small")).to_contain_text("loaded")


DRAW_ANEW = """(selector) => {
  const fold = document.querySelector(selector), fresh = document.createElement("div");
  fresh.innerHTML = fold.outerHTML.replace(/ (open|data-drawn)=""/g, "");
  if (fresh.firstChild.open) throw new Error("it is drawn unfolded");
  fold.replaceWith(fresh.firstChild);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.serves("translation")
@pytest.mark.slow
def test_the_models_tab_fits_a_phone(open_page: Open, theme: str) -> None:
    page = open_page(f"?tab=models&__theme={theme}", 390, 844)
    page.locator("#models-report summary").click()
    table = page.locator("#models-report .elsewhere table")
    expect(table).to_be_visible()
    page.evaluate(DRAW_ANEW, "#models-report .elsewhere")
    expect(table).to_be_visible()  # as when something else in the report has changed
    assert overflow(page) <= 0
    assert contrast(page, "#models-report .elsewhere td") >= 4.5
    assert contrast(page, "#models-report summary") >= 4.5


# -- batch -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.serves("classification")
def test_a_batch_asks_before_it_fetches(open_page: Open, taught: Course) -> None:
    page = open_page()
    answered(page, "zero_shot")
    unfold(page, "Settings")
    choose(page, "Model", MNLI)
    unfold(page, "Batch")
    fill(page, "zero_shot-batch-lines", "The sea is near.\nThe old man takes the train.")
    run, result = page.locator("#zero_shot-batch-run"), page.locator("#zero_shot-batch-result")
    before = taught.hub.sent("/storage/")
    run.click()
    expect(result).to_contain_text(f"This needs {MNLI}, which is on the Hub")
    expect(page.locator("#zero_shot-batch-consent")).to_have_text(re.compile(r"Fetch it \(\d+ MB\) and go on"))
    expect(run).to_be_enabled()
    expect(page.locator("#zero_shot-batch-stop")).to_be_disabled()
    assert taught.hub.sent("/storage/") == before

    taught.hub.faults.slow("/storage/", bytes_per_second=20_000)
    agree(page, "zero_shot-batch")
    expect(result).to_contain_text(f"Loading {MNLI}: fetching")
    page.locator("#zero_shot-batch-stop").click()
    expect(result).to_have_text("Stopped before there was a result.")
    expect(run).to_be_enabled()
    page.wait_for_timeout(700)  # longer than a heartbeat
    expect(result).to_have_text("Stopped before there was a result.", timeout=1)

    taught.hub.faults.clear()
    run.click()
    agree(page, "zero_shot-batch")
    expect(result.locator("tbody tr")).to_have_count(2)
    expect(result).to_contain_text(MNLI)
    expect(page.locator("#zero_shot-batch-consent")).to_be_hidden()
    expect(menu(page, "Model")).not_to_have_value(re.compile("to fetch"))


# -- summaries and chat ------------------------------------------------------------------------------


@pytest.mark.serves("summarization")
@pytest.mark.slow
def test_summaries_by_zero_one_and_few_examples(open_page: Open, taught: Course) -> None:
    shots = '[["Ann: Is there a bus?\\nBo: Take the train.","They take the train."],["Cy: The sea?","It is near."]]'
    text = quote("Ann: Hello.\nBo: Goodbye.")
    page = open_page(f"?tab=summarization&form=summarize&style=dialogue&text={text}&examples={quote(shots)}")
    choose(page, "Model", FLAN)
    unfold(page, "Settings")
    expect(page.locator("table").locator("visible=true").first).to_contain_text("They take the train.")
    page.locator("#summarize-run").click()
    agree(page, "summarize")
    answered(page, "summarize")
    expect(page.locator("#summarize-result h3")).to_have_text(["Zero-shot", "One-shot", "Few-shot (2)"])
    unfold(page, "What happened")
    prompts = page.locator(".what pre").locator("visible=true")
    expect(prompts).to_have_count(3)
    tokenizer = AutoTokenizer.from_pretrained(taught.folders[FLAN])

    def exact(*blocks: str) -> str:
        """As the model reads it: this tiny one knows few letters."""
        asked = "Summarize this dialogue:\nAnn: Hello.\nBo: Goodbye.\nSummary:"
        return tokenizer.decode(tokenizer("\n\n".join([*blocks, asked]))["input_ids"])

    first = "Summarize this dialogue:\nAnn: Is there a bus?\nBo: Take the train.\nSummary: They take the train."
    second = "Summarize this dialogue:\nCy: The sea?\nSummary: It is near."
    assert prompts.all_text_contents() == [exact(), exact(first), exact(first, second)]


@pytest.mark.slow
@pytest.mark.serves("generation")
def test_a_chat_asks_before_it_fetches_and_keeps_what_was_said(open_page: Open, taught: Course) -> None:
    page = open_page("?tab=generation&form=chat&max_new_tokens=6&message=" + quote("I am Bob."))
    expect(page.locator("#chat-message textarea")).to_have_value("I am Bob.")
    page.locator("#chat-run").click()
    expect(page.locator("#chat-account")).to_contain_text("computing")
    unfold(page, "Settings")
    choose(page, "Model", SMOLLM)
    expect(menu(page, "Model")).to_have_value(re.compile("to fetch"))
    fill(page, "chat-message", "Who am I?")
    before = taught.hub.sent("/storage/")
    page.locator("#chat-run").click()

    result, consent, stop = page.locator("#chat-result"), page.locator("#chat-consent"), page.locator("#chat-stop")
    turns, message = result.locator(".turn"), page.locator("#chat-message textarea")
    expect(result).to_contain_text(f"This needs {SMOLLM}, which is on the Hub: about 1 MB to fetch, once.")
    expect(consent).to_have_text("Fetch it (1 MB) and go on")
    expect(page.locator("#chat-run")).to_be_enabled()
    expect(stop).to_be_disabled()
    expect(turns).to_have_count(2)
    expect(message).to_have_value("Who am I?")
    assert taught.hub.sent("/storage/") == before

    taught.hub.faults.slow("/storage/", bytes_per_second=20_000)
    agree(page, "chat")
    expect(result).to_contain_text(f"Loading {SMOLLM}: fetching")
    expect(consent).to_be_hidden()
    stop.click()
    expect(page.locator("#chat-account")).to_contain_text("Stopped")
    expect(page.locator("#chat-run")).to_be_enabled()
    page.wait_for_timeout(700)  # longer than a heartbeat
    expect(stop).to_be_disabled(timeout=1)
    expect(result.locator(".waiting")).to_have_count(0, timeout=1)
    expect(turns).to_have_count(2, timeout=1)
    expect(message).to_have_value("Who am I?", timeout=1)

    taught.hub.faults.clear()
    page.locator("#chat-run").click()
    agree(page, "chat")
    expect(page.locator("#chat-account")).to_contain_text(SMOLLM)
    expect(result.locator(".turn.user .said")).to_have_text(["I am Bob.", "Who am I?"])
    expect(turns).to_have_count(4)
    expect(page.locator("#chat-run")).to_be_enabled()
    expect(consent).to_be_hidden()
    expect(menu(page, "Model")).not_to_have_value(re.compile("to fetch"))


@pytest.mark.serves("generation")
@pytest.mark.slow
def test_a_new_chat_takes_the_question_away(open_page: Open) -> None:
    page = open_page("?tab=generation&form=chat&message=" + quote("Hello?"))
    expect(page.locator("#chat-message textarea")).to_have_value("Hello?")
    unfold(page, "Settings")
    choose(page, "Model", "HuggingFaceTB/SmolLM2-360M-Instruct")
    page.locator("#chat-run").click()
    expect(page.locator("#chat-consent")).to_be_visible()
    page.locator("#chat-clear").click()
    expect(page.locator("#chat-consent")).to_be_hidden()
    expect(page.locator("#chat-result [role=alert]")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.serves("generation")
def test_a_chat_with_a_model_that_takes_no_system_prompt(open_page: Open) -> None:
    page = open_page("?tab=generation&form=chat&max_new_tokens=8&message=" + quote("How do I cook rice?"))
    expect(page.locator("#chat-message")).to_be_visible()
    unfold(page, "Settings")
    choose(page, "Model", DIALOGPT)
    page.locator("#chat-run").click()
    agree(page, "chat")
    expect(page.locator("#chat-account")).to_contain_text(DIALOGPT)
    expect(page.locator("#chat-run")).to_be_enabled()
    expect(page.locator("#chat-message textarea")).to_have_value("")  # taken
    fill(page, "chat-message", "In a plain old pot?")
    page.locator("#chat-run").click()
    expect(page.locator("#chat-result .turn.user .said")).to_have_text(["How do I cook rice?", "In a plain old pot?"])
    expect(page.locator("#chat-result .turn")).to_have_count(4)
    expect(page.locator("#chat-run")).to_be_enabled()

    page.get_by_label("System prompt").locator("visible=true").fill("Be kind.")
    expect(page.locator("#chat-message textarea")).to_have_value("")  # taken
    fill(page, "chat-message", "And with salt?")
    page.locator("#chat-run").click()
    problem = page.locator("#chat-result [role=alert]")
    expect(problem).to_contain_text(re.compile(f"{DIALOGPT}.*system prompt"))
    expect(page.locator("#chat-message textarea")).to_have_value("And with salt?")
    expect(page.locator("#chat-result .turn")).to_have_count(4)


# -- without a Hub -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A suite that looks for a Hub where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        turn_clients_to(nowhere, tmp_path_factory.mktemp("hf-home"), patch)
        suite = serve(
            Settings(port=0, warm_examples=False, profile="auto", spaces=("classification", "reading")), block=False
        )
        yield suite
        suite.close()


@pytest.fixture
def open_alone(browser: Browser, alone: Suite) -> Iterator[Open]:
    with opener(browser, alone.url) as open_page:
        yield open_page


def test_without_a_hub_the_page_says_so_and_works(open_alone: Open) -> None:
    page = open_alone()
    expect(page.locator(".suite-header")).to_contain_text("profile: auto (no Hub answers")
    assert overflow(page) <= 0
    answered(page, "zero_shot")
    expect(page.locator("#zero_shot-result .answer")).to_have_text("health")
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#models-report")).to_contain_text("no Hub answers")


@pytest.mark.slow
def test_without_a_hub_a_form_says_what_it_would_need(open_alone: Open) -> None:
    page = open_alone(MASKED, 390, 844)
    page.locator("#fill_mask-run").click()
    problem = page.locator("#fill_mask-result [role=alert].problem")
    expect(problem).to_contain_text(re.compile(f"needs {BERT}, .*it is on the Hub, and no Hub answers"))
    expect(page.locator("#fill_mask-consent")).to_be_hidden()
    expect(page.locator("#fill_mask-run")).to_be_enabled()
    expect(page.locator("#fill_mask-text textarea")).to_have_value("Paris is the capital of [MASK].")
    assert overflow(page) <= 0
