"""Summaries: sentences chosen from the text, or written anew, on the real weights."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeVar

import pytest

from shared.errors import Cancelled, InvalidInput
from shared.events import Done, Partial, Running, result_of
from shared.media.text import sentences
from shared.serving.context import Context
from shared.serving.endpoint import collect
from shared.serving.traffic import Traffic
from summarization import SPACE, abstractive
from summarization.abstractive import chat_writer, parts, shortened_to_fit
from summarization.task import Summarize, Summary, rouge, rows
from tests.test_cancel import Steps

LM, ENCODER = "SmolLM2-135M-Instruct", "all-MiniLM-L6-v2"
EXAMPLES = {example["title"]: example["inputs"] for example in SPACE.examples["summarize"]}
GENEVA, DIALOGUE, NEWS = (
    EXAMPLES[t] for t in ("A city, Geneva", "Dialogue: a lost suitcase", "Short news, with reference")
)

R = TypeVar("R")


def ask(context: Context, **values: Any) -> Done[Summary]:
    return collect(SPACE.endpoint("summarize").run(values, context, Traffic()))


# -- chosen sentences ------------------------------------------------------------------------------


@pytest.mark.parametrize("max_new_tokens", [30, 96, 300])
def test_chosen_sentences_are_the_sources_own_in_their_order(context: Context, max_new_tokens: int) -> None:
    done = ask(context, text=GENEVA["text"], max_new_tokens=max_new_tokens)
    summary = done.result
    assert done.run.checkpoint == ENCODER
    assert summary.chosen
    assert all(span.text == summary.source[span.start : span.end] for span in summary.chosen)
    assert [span.start for span in summary.chosen] == sorted({span.start for span in summary.chosen})
    assert set(summary.chosen) <= set(sentences(summary.source))
    assert summary.text == " ".join(span.text for span in summary.chosen)
    with result_of(context.borrow(ENCODER, "summarization")) as lease:
        assert sum(lease.sentence_encoder().count_tokens([span.text for span in summary.chosen])) <= max_new_tokens
    assert 0 < summary.compression < 1
    assert done.run.input_tokens > 500


def test_a_longer_limit_gives_a_longer_summary(context: Context) -> None:
    lengths = [len(ask(context, text=GENEVA["text"], max_new_tokens=n).result.chosen) for n in (40, 120, 400)]
    assert lengths[0] < lengths[1] < lengths[2]


def test_every_sentence_has_its_score(context: Context) -> None:
    summary = ask(context, text=GENEVA["text"]).result
    assert [span for span, _ in summary.scores] == sentences(GENEVA["text"])
    assert all(-1 <= score <= 1 for _, score in summary.scores)


def test_at_least_one_sentence_is_chosen_however_short_the_limit(context: Context) -> None:
    text = f"{'A very long sentence that goes on and on ' * 6}. {'Another one that does not end at all ' * 6}."
    assert len(ask(context, text=text, max_new_tokens=8).result.chosen) == 1
    one = ask(context, text="Just this.", max_new_tokens=8).result
    assert one.text == "Just this."
    assert one.compression == 1


@pytest.mark.parametrize("max_new_tokens", [60, 100])
def test_a_sentence_that_stands_twice_is_chosen_once(context: Context, max_new_tokens: int) -> None:
    """As where a page's headline or teaser is pasted along with the article."""
    teaser = sentences(NEWS["text"])[0].text
    chosen = ask(context, text=f"{teaser}\n\n{NEWS['text']}", max_new_tokens=max_new_tokens).result.chosen
    assert len({span.text for span in chosen}) == len(chosen) > 1


def test_a_dialogue_is_taken_turn_by_turn(context: Context) -> None:
    summary = ask(context, text=DIALOGUE["text"], style="dialogue", max_new_tokens=60).result
    turns = DIALOGUE["text"].splitlines()
    assert [turn for turn in turns if turn in summary.text.splitlines()] == summary.text.splitlines()
    assert len(summary.chosen) >= 2


def test_beams_are_refused_where_sentences_are_chosen(context: Context) -> None:
    with pytest.raises(InvalidInput, match=f"{ENCODER} picks sentences and has no beams") as caught:
        ask(context, text=NEWS["text"], num_beams=4)
    assert caught.value.field == "num_beams"


# -- written anew ----------------------------------------------------------------------------------


def test_a_language_model_writes_a_summary_and_streams_it(context: Context) -> None:
    values = {"text": NEWS["text"], "model": LM, "max_new_tokens": 40}
    events = list(SPACE.endpoint("summarize").run(values, context, Traffic()))
    texts = [event.result.text for event in events if isinstance(event, Partial)]
    done = events[-1]
    assert isinstance(done, Done)
    assert len(texts) > 10
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert done.result.text == texts[-1]
    assert done.result.parts == 1
    assert done.result.chosen == []
    assert 10 < done.run.new_tokens <= 40
    assert done.run.tokens_per_second is not None
    assert NEWS["text"].strip() in done.result.prompt
    assert rouge(done.result.text, NEWS["text"])["rouge1"] > 0.15  # it is about the same thing


def test_a_language_model_has_beams(context: Context) -> None:
    done = ask(
        context, text="The bridge closes on Monday for repairs. Ferries run.", model=LM, num_beams=2, max_new_tokens=12
    )
    assert done.result.text
    assert 0 < done.run.new_tokens <= 12


def test_a_dialogue_is_said_to_be_one(context: Context) -> None:
    prompts = [
        ask(context, text="Ann: Hi.\nBen: Bye.", style=style, model=LM, max_new_tokens=8).result.prompt
        for style in ("dialogue", "article")
    ]
    assert "The text is a conversation." in prompts[0]
    assert "conversation" not in prompts[1]


LONG = "\n\n".join(
    f"Number {i}: the {thing} of the town hall was repaired in {1950 + i}. It cost {i + 2} million."
    for i, thing in enumerate(["roof", "clock", "cellar", "stairs", "door", "organ"])
)


def test_a_long_text_is_read_in_parts_and_joined(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abstractive, "PART_TOKENS", 80)
    values = {"text": LONG, "model": LM, "max_new_tokens": 16}
    events = list(SPACE.endpoint("summarize").run(values, context, Traffic()))
    done = events[-1]
    assert isinstance(done, Done)
    count = done.result.parts
    assert 2 <= count <= 5
    told = [event.what for event in events if isinstance(event, Running)]
    assert told == [f"reading part {i} of {count}" for i in range(1, count + 1)] + [f"joining {count} parts"]
    assert done.result.text
    assert done.run.new_tokens <= 16 * (count + 1)
    # The last prompt holds what was written about the parts.
    drafts = [e.result.text for e in events if isinstance(e, Partial) and e.result.text.count("\n") == count - 1]
    assert drafts
    assert drafts[-1].splitlines()[0] in done.result.prompt


def test_the_long_example_is_read_in_parts_to_its_end(context: Context) -> None:
    text = EXAMPLES["A long story, in parts"]["text"]
    with result_of(context.borrow(LM, "summarization")) as lease:
        writer = chat_writer(lease, "article")
        found = parts(text, 96, writer)
        assert len(found) > 1
        assert max(len(lease.causal_lm().tokenize(part)) for part in found) <= writer.text_tokens(96)
    assert "".join("".join(found).split()) == "".join(text.split())


@pytest.mark.parametrize("style", ["article", "dialogue"])
def test_parts_hold_all_of_the_text_and_each_fits(
    context: Context, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    monkeypatch.setattr(abstractive, "PART_TOKENS", 50)
    text = f"{LONG}\n{'endless ' * 200}\nThe end."
    with result_of(context.borrow(LM, "summarization")) as lease:
        found = parts(text, 96, chat_writer(lease, style))
        assert all(len(lease.causal_lm().tokenize(part)) <= 50 for part in found)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_drafts_that_do_not_fit_together_are_shortened(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abstractive, "PART_TOKENS", 60)
    with result_of(context.borrow(LM, "summarization")) as lease:
        shown = shortened_to_fit(["short one", "a very long draft " * 50], 96, chat_writer(lease, "article"))
        assert len(lease.causal_lm().tokenize(shown)) <= 60
    assert "short one" in shown
    assert "a very long draft" in shown


def test_a_stop_ends_the_writing(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(context.runtime, free=8)  # who writes may be ahead of who reads
    monkeypatch.setattr(context.runtime.lane, "submit", steps.submit)
    events = SPACE.endpoint("summarize").run({"text": NEWS["text"], "model": LM}, context, Traffic())
    seen = 0

    def consume() -> None:
        nonlocal seen
        for event in events:
            seen += isinstance(event, Partial)
            if seen == 3:
                context.cancel.set()

    with pytest.raises(Cancelled):
        consume()
    assert 3 <= seen <= steps.begun <= 8
    assert not steps.never_cancelled
    assert all(row["borrows"] == 0 for row in context.runtime.cache.report()["checkpoints"])


# -- both ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [ENCODER, LM])
def test_rows_are_answered_as_alone(context: Context, model: str) -> None:
    texts = ["The bridge closes on Monday. Ferries run instead.", "A cat was found in a tree. Firemen came."]
    requests = [Summarize.model_validate({"text": text, "model": model, "max_new_tokens": 8}) for text in texts]
    with result_of(context.borrow(model, "summarization")) as lease:
        found = [summary.row() for summary in rows(requests, lease)]
    assert found == [{"summary": ask(context, text=t, model=model, max_new_tokens=8).result.text} for t in texts]


def test_rouge_of_identical_different_and_overlapping_texts() -> None:
    assert rouge("The cat sat on the mat.", "The cat sat on the mat.") == {"rouge1": 1, "rouge2": 1, "rougeL": 1}
    assert rouge("cat", "dog") == {"rouge1": 0, "rouge2": 0, "rougeL": 0}
    some = rouge("the cat sat", "the cat ran away")  # 2 of 3 words, 2 of 4
    assert some["rouge1"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert some["rouge2"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))


def test_examples_of_the_space_are_valid(context: Context) -> None:
    for example in SPACE.examples["summarize"]:
        inputs = {name: value for name, value in example["inputs"].items() if name != "reference"}
        Summarize.model_validate(inputs, context={"settings": context.settings})


# -- examples in the prompt ------------------------------------------------------------------------


SHOTS = [["Ann: Lunch at one?\nBo: Make it two.", "Ann and Bo meet for lunch at two."]]


def test_examples_come_before_the_text_as_earlier_turns(context: Context) -> None:
    done = ask(context, text=DIALOGUE["text"], style="dialogue", model=LM, examples=SHOTS, max_new_tokens=16)
    prompt = done.result.prompt
    assert prompt.index("Make it two.") < prompt.index("Ann and Bo meet") < prompt.index("suitcase")
    assert done.result.text


def test_examples_are_refused_by_name_where_they_cannot_help(context: Context) -> None:
    with pytest.raises(InvalidInput, match="learns from no examples") as caught:
        ask(context, text="One. Two.", examples=SHOTS)
    assert caught.value.field == "examples"
    with pytest.raises(InvalidInput, match="leave no room for the text") as caught:
        ask(context, text="One. Two.", examples=[["long " * 9000, "short"]], model=LM)
    assert caught.value.field == "examples"
