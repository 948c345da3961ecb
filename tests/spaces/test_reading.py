"""Questions answered by the closest sentence, on the real embedded encoder; masks need a checkpoint of the Hub."""

from __future__ import annotations

from typing import Any

import pytest

from reading import SPACE
from shared.errors import InvalidInput, UnknownCheckpoint
from shared.events import Done
from shared.serving.context import Context
from shared.serving.endpoint import collect
from shared.serving.traffic import Traffic

EXAMPLES = {e["title"]: e["inputs"] for e in SPACE.examples["answer_question"]}


def ask(context: Context, endpoint: str, **values: Any) -> Done[Any]:
    return collect(SPACE.endpoint(endpoint).run(values, context, Traffic()))


@pytest.mark.parametrize(
    ("title", "holds", "place"),
    # The encoder compares subjects: of the bridge it likes the sentence about its arch better.
    [("A harbour bridge", "more than eight years of work", 2), ("When does the shop open?", "between ten and two", 0)],
)
def test_the_closest_sentences_hold_the_answer(context: Context, title: str, holds: str, place: int) -> None:
    done = ask(context, "answer_question", **EXAMPLES[title])
    assert any(holds in answer.text for answer in done.result.answers[: place + 1])
    text = EXAMPLES[title]["text"]
    for answer in done.result.answers:
        assert text[answer.start : answer.end] == answer.text
    scores = [answer.score for answer in done.result.answers]
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) <= 1 + 1e-6
    assert done.run.checkpoint == "all-MiniLM-L6-v2"
    assert done.run.input_tokens > 50


def test_a_text_of_one_sentence_and_one_of_symbols(context: Context) -> None:
    assert ask(context, "answer_question", question="Who?", text="Ann.").result.answers[0].score == pytest.approx(1)
    assert len(ask(context, "answer_question", question="?", text="…", top_k=10).result.answers) == 1


def test_a_text_without_a_mask_is_refused_before_anything_is_loaded(context: Context) -> None:
    with pytest.raises(InvalidInput, match="has no \\[MASK\\]") as caught:
        ask(context, "fill_mask", text="Paris is the capital of France.")
    assert caught.value.field == "text"


def test_without_a_hub_a_masked_model_is_missing_and_the_error_says_so(context: Context) -> None:
    with pytest.raises(UnknownCheckpoint, match="fill-mask needs google-bert/bert-base-uncased, which"):
        ask(context, "fill_mask", text="Paris is the capital of [MASK].")
