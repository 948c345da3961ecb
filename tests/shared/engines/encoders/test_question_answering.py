"""Extractive question answering against a plain reference, written from the former pipeline's definition."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from shared.engines.compute import RunHere
from shared.engines.encoders import question_answering
from shared.engines.encoders.question_answering import (
    LONGEST_ANSWER,
    STRIDE,
    TorchQuestionAnswerer,
    best_apart,
    memory_bytes,
)
from shared.engines.protocols import AnswerSpan
from shared.errors import Cancelled, InvalidInput
from shared.settings import Settings
from tests.tiny_checkpoints.encoders import bert_qa, distilbert_qa, roberta_qa
from tests.tiny_checkpoints.entry import entry
from tests.tiny_checkpoints.vocabulary import CORPUS

T = TypeVar("T")
Made = tuple[TorchQuestionAnswerer, Path]

QUESTION = "Who wrote the book?"
SHORT = "The book was written by a woman from Santiago in 1971."
UNICODE = "🙂🎉 naïve cafe\u0301 — «Der Fluß» ist groß; 生活就像一盒巧克力。 👍🏽 जीवन एक\u00a0चॉकलेट\tבוקס.  End\n\n"
WORDS = sorted({word for line in CORPUS for word in line.split()})


def scrambled(words: int, seed: int) -> str:
    """So many words of the corpus in random order, so that no two windows are alike."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


CONTEXTS = {"short": SHORT, "unicode": UNICODE, "one word": "Santiago", "long": scrambled(600, 1)}


def load(folder: Path, **changes: Any) -> TorchQuestionAnswerer:
    return question_answering.load(entry(**{"context_window": 384, **changes}), folder, Settings(), lambda *_: None)


@pytest.fixture(scope="module", params=[bert_qa, distilbert_qa, roberta_qa], ids=["BERT", "DistilBERT", "RoBERTa"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = request.param(tmp_path_factory.mktemp("qa"))
    return load(folder), folder


def theirs(folder: Path, question: str, context: str, top_k: int, max_tokens: int = 384) -> list[AnswerSpan]:
    """Every span of every window, scored one by one from transformers' tokenizer and model."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForQuestionAnswering.from_pretrained(folder)
    windows = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=max_tokens,
        stride=min(STRIDE, max_tokens // 3),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    spans = []
    for i, ids in enumerate(windows["input_ids"]):
        inputs = {name: torch.tensor([windows[name][i]]) for name in tokenizer.model_input_names}
        with torch.inference_mode():
            output = model(**inputs)
        in_context = [sequence == 1 for sequence in windows.sequence_ids(i)]
        masked = np.array(
            [not (inside or id_ == tokenizer.cls_token_id) for inside, id_ in zip(in_context, ids, strict=True)]
        )
        starts, ends = (np.where(masked, -10_000.0, x[0].numpy()) for x in (output.start_logits, output.end_logits))
        starts, ends = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (starts, ends))
        for first in np.flatnonzero(in_context):
            for last in range(first, min(first + LONGEST_ANSWER, len(ids))):
                if in_context[last]:
                    begin, end = windows["offset_mapping"][i][first][0], windows["offset_mapping"][i][last][1]
                    spans.append((starts[first] * ends[last], begin, end))
    found: list[AnswerSpan] = []
    for score, begin, end in sorted(spans, key=lambda span: -span[0]):
        apart = all(end <= one.start or one.end <= begin for one in found)
        if len(found) < top_k and apart and context[begin:end].strip():
            found.append(AnswerSpan(begin, end, context[begin:end], float(score)))
    return found


def same(found: list[AnswerSpan], expected: list[AnswerSpan]) -> None:
    assert [(a.start, a.end, a.text) for a in found] == [(a.start, a.end, a.text) for a in expected]
    assert [a.score for a in found] == pytest.approx([a.score for a in expected], rel=1e-3)


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS.keys())
def test_answers_are_those_of_the_reference(made: Made, context: str) -> None:
    engine, folder = made
    found = engine.answer(QUESTION, context, 5)
    same(found, theirs(folder, QUESTION, context, 5))
    for answer in found:
        assert answer.text == context[answer.start : answer.end]
        assert answer.text == answer.text.strip() != ""
        assert 0 < answer.score <= 1


@pytest.mark.parametrize("question", ["?", "Der Fluß 🙂 生活?", scrambled(40, 2)])
def test_questions_of_any_length_and_script(made: Made, question: str) -> None:
    engine, folder = made
    context = scrambled(300, 3)
    same(engine.answer(question, context, 3), theirs(folder, question, context, 3))


def test_the_windows_are_those_of_transformers(made: Made) -> None:
    engine, folder = made
    context = scrambled(900, 4)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    expected = tokenizer(
        QUESTION, context, truncation="only_second", max_length=384, stride=STRIDE, return_overflowing_tokens=True
    )["input_ids"]
    windows = list(engine._windows(QUESTION, context))
    assert len(windows) > 3
    assert [window.encoding.ids for window in windows] == expected
    assert max(len(window.encoding.ids) for window in windows) == engine.max_tokens
    assert windows[0].offsets[0, 0] == 0
    assert windows[-1].offsets[-1, 1] == len(context)


def test_answers_do_not_overlap_and_come_in_order(made: Made) -> None:
    engine, _ = made
    found = engine.answer(QUESTION, scrambled(400, 5), 12)
    assert len(found) == 12
    for i, one in enumerate(found):
        assert all(other.end <= one.start or one.end <= other.start for other in found[:i])
    assert [a.score for a in found] == sorted((a.score for a in found), reverse=True)


def test_an_answer_is_found_wherever_it_stands(made: Made) -> None:
    """Both sides of a window's edge: the likeliest span of the text's end is the likeliest of that end alone."""
    engine, folder = made
    for words in (180, 200, 220):
        context = scrambled(words, words)
        same(engine.answer(QUESTION, context, 1), theirs(folder, QUESTION, context, 1))


def test_there_may_be_fewer_answers_than_asked_for(made: Made) -> None:
    engine, _ = made
    assert engine.answer(QUESTION, "", 3) == []
    assert engine.answer(QUESTION, " \n\t ", 3) == []
    assert 1 <= len(engine.answer(QUESTION, "of", 5)) <= 2


def test_spans_apart() -> None:
    context = "aa bb cc"
    spans = np.array([[0, 5], [3, 8], [6, 8], [2, 3], [5, 5], [2, 5]])
    found = best_apart(context, spans, np.array([0.5, 0.4, 0.3, 0.2, 0.9, 0.1]), 5)
    # The second overlaps the first, the fourth is a space and the fifth is nothing.
    assert [(a.text, a.score) for a in found] == [("aa bb", 0.5), ("cc", 0.3)]
    (trimmed,) = best_apart(context, np.array([[2, 6]]), np.array([0.5]), 1)
    assert (trimmed.start, trimmed.end, trimmed.text) == (3, 5, "bb")


def test_batches_change_nothing_and_each_is_a_step(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = made
    context, taken = scrambled(500, 6), 0
    expected = engine.answer(QUESTION, context, 5)

    def compute(step: Callable[[], T], /) -> T:
        nonlocal taken
        taken += 1
        return step()

    monkeypatch.setattr(engine.batches, "most", 1)
    same(engine.answer(QUESTION, context, 5, RunHere(compute)), expected)
    assert taken == len(list(engine._windows(QUESTION, context)))


def test_a_cancelled_request_stops_at_the_next_batch(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = made
    taken = 0

    def compute(step: Callable[[], T], /) -> T:
        nonlocal taken
        if taken == 2:
            raise Cancelled
        taken += 1
        return step()

    monkeypatch.setattr(engine.batches, "most", 1)
    with pytest.raises(Cancelled):
        engine.answer(QUESTION, scrambled(600, 7), 1, RunHere(compute))
    assert taken == 2


def test_a_question_without_room_for_the_text_is_refused(made: Made) -> None:
    engine, _ = made
    with pytest.raises(InvalidInput) as refused:
        engine.answer(scrambled(200, 8), SHORT, 1)
    assert refused.value.field == "question"
    assert "tokens long" in refused.value.message


def test_a_small_window_is_honoured(made: Made) -> None:
    _, folder = made
    small = load(folder, context_window=64)
    context = scrambled(80, 9)
    same(small.answer(QUESTION, context, 3), theirs(folder, QUESTION, context, 3, max_tokens=64))
    assert max(len(window.encoding.ids) for window in small._windows(QUESTION, context)) == 64
    assert load(folder, context_window=10_000).max_tokens == 512


def test_memory_is_known_before_loading(made: Made) -> None:
    engine, _ = made
    assert engine.nbytes == memory_bytes(entry(parameters=engine.model.num_parameters()))
    assert engine.count_tokens(["book", ""])[1] == 0
