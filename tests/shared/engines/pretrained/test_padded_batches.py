"""Pieces of nearly one length are computed together, whoever asked, and each gets what it gets alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engines.audio import audio_classifier
from shared.engines.encoders import masked_lm, question_answering, sequence_classifier
from shared.engines.pretrained.padded_batches import PADDING, PaddedBatches
from shared.errors import Cancelled
from shared.scheduling.lane import Lane
from shared.settings import Settings
from tests.shared.engines.audio.test_audio_classifier import sounds
from tests.shared.engines.decoders.test_batched import Turns
from tests.shared.scheduling.test_lane import Held
from tests.tiny_checkpoints.encoders import (
    bert_mlm,
    bert_qa,
    convbert_sst2,
    distilbert_qa,
    distilbert_sst2,
    roberta_mlm,
    roberta_mnli,
    roberta_qa,
    wav2vec2_genres,
    wav2vec2_masked,
)
from tests.tiny_checkpoints.entry import entry

SOON = 60.0


@dataclass(frozen=True)
class Case:
    """An engine's checkpoint and what visitors ask of it; `numbers` is what an answer comes down to."""

    load: Callable[..., Any]
    folder: Callable[[Path], Path]
    asked: Sequence[Any]
    ask: Callable[[Any, Any, Any], Any]
    numbers: Callable[[Any], tuple[Any, list[float]]]


TEXTS = [
    "I love it!",
    "A terrible, boring film.",
    "The capital of France is Paris, and it rains.",
    "x",
    "Der Fluß ist groß 🙂",
    "word word word word word word word word",
]


def of_rows(rows: np.ndarray) -> tuple[Any, list[float]]:
    """The likeliest label of each row, and all logits."""
    return rows.argmax(1).tolist(), rows.ravel().tolist()


def of_tokens(lists: Any) -> tuple[Any, list[float]]:
    return [[t.id for t in row] for row in lists], [t.probability for row in lists for t in row]


def of_spans(spans: Any) -> tuple[Any, list[float]]:
    return [(s.start, s.end, s.text) for s in spans], [s.score for s in spans]


CLASSIFIERS = {
    name: Case(
        sequence_classifier.load,
        folder,
        [[text, *TEXTS[:extra]] for extra, text in enumerate(TEXTS)],
        lambda engine, texts, compute: engine.logits(texts, compute),
        of_rows,
    )
    for name, folder in (("DistilBERT", distilbert_sst2), ("RoBERTa", roberta_mnli), ("ConvBERT", convbert_sst2))
}
MASKED = {
    name: Case(
        masked_lm.load,
        folder,
        [(f"{'<mask> ' * (i % 2)}{text} [MASK]", i + 1) for i, text in enumerate(TEXTS)],
        lambda engine, asked, compute: engine.fill(*asked, compute),
        of_tokens,
    )
    for name, folder in (("BERT masks", bert_mlm), ("RoBERTa masks", roberta_mlm))
}
ANSWERS = {
    name: Case(
        question_answering.load,
        folder,
        [(f"Who said {text[:5]}?", f"{text} {TEXTS[i - 1]}") for i, text in enumerate(TEXTS)],
        lambda engine, asked, compute: engine.answer(*asked, 2, compute),
        of_spans,
    )
    for name, folder in (
        ("BERT answers", bert_qa),
        ("DistilBERT answers", distilbert_qa),
        ("RoBERTa answers", roberta_qa),
    )
}
SOUNDS = {
    name: Case(
        audio_classifier.load,
        folder,
        [sounds(1 + i % 2, 0.5 + 0.1 * (i // 2)) for i in range(6)],
        lambda engine, windows, compute: engine.logits(windows, compute),
        of_rows,
    )
    for name, folder in (("wav2vec2", wav2vec2_genres), ("wav2vec2 with a mask", wav2vec2_masked))
}
CASES = {**CLASSIFIERS, **MASKED, **ANSWERS, **SOUNDS}


def loaded(case: Case, folder: Path) -> Any:
    return case.load(entry(), case.folder(folder), Settings(), lambda *_: None)


@pytest.fixture(scope="module", params=CASES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Any]:
    case = CASES[request.param]
    return case, loaded(case, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def sst2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(CASES["DistilBERT"], tmp_path_factory.mktemp("sst2"))


@pytest.fixture
def lane() -> Iterator[Lane]:
    """One step at a time, so that what waits meanwhile is known."""
    lane = Lane(1)
    yield lane
    lane.close()


def steps_of(kernel: PaddedBatches[Any, Any], monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths of the pieces of each step from now on."""
    steps: list[list[int]] = []
    forward, length = kernel._forward, kernel._length

    def noted(pieces: Sequence[Any]) -> Any:
        steps.append([length(piece) for piece in pieces])
        return forward(pieces)

    monkeypatch.setattr(kernel, "_forward", noted)
    return steps


def all_at_once(lane: Lane, asks: Sequence[Callable[[], Any]], pieces: int) -> list[Future[Any]]:
    """Has all asked while the lane is held, and lets it go when so many pieces wait."""
    held = Held(lane)
    with ThreadPoolExecutor(len(asks)) as threads:
        begun = [threads.submit(ask) for ask in asks]
        held.wait_for(pieces)
        held.release()
    return begun


# -- together ------------------------------------------------------------------------------------------


def test_visitors_share_steps_and_get_what_they_get_alone(
    served: tuple[Case, Any], lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, engine = served
    steps = steps_of(engine.batches, monkeypatch)
    alone = [case.numbers(case.ask(engine, asked, Turns(lane, "alone"))) for asked in case.asked]
    pieces, steps_alone = [length for step in steps for length in step], len(steps)
    steps.clear()
    asks = [
        lambda i=i, asked=asked: case.numbers(case.ask(engine, asked, Turns(lane, f"visitor {i}")))
        for i, asked in enumerate(case.asked)
    ]
    together = [one.result(SOON) for one in all_at_once(lane, asks, len(pieces))]
    assert sorted(length for step in steps for length in step) == sorted(pieces)
    assert len(steps) < steps_alone
    for (label, numbers), (expected_label, expected) in zip(together, alone, strict=True):
        assert label == expected_label
        assert numbers == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_unequal_lengths_share_a_step_where_padding_is_not_read(served: tuple[Case, Any]) -> None:
    """ConvBERT's convolutions read it, and what is normalised over time does."""
    case, engine = served
    reads_padding = case in (CASES["ConvBERT"], CASES["wav2vec2"])
    assert (engine.batches.padding == 0) is reads_padding
    if case is CASES["wav2vec2 with a mask"]:
        short, long = (sounds(1, seconds)[0] for seconds in (0.5, 0.7))
        assert engine.batches.can_join([short], long)
        (alone,), (beside, _) = engine.batches([short]), engine.batches([short, long])
        np.testing.assert_allclose(beside, alone, atol=1e-5)


def test_a_row_that_fails_and_one_that_is_cancelled_harm_nobody(
    sst2: Any, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [sst2.logits([text]) for text in TEXTS]
    forward, length = sst2.batches._forward, sst2.batches._length
    broken = length(sst2._inputs.fitting([TEXTS[1]])[0])
    cancel = threading.Event()
    seen = []

    def failing(pieces: Sequence[Any]) -> Any:
        seen.extend(piece.ids for piece in pieces)
        if any(length(piece) == broken for piece in pieces):
            raise RuntimeError("this row")
        return forward(pieces)

    monkeypatch.setattr(sst2.batches, "_forward", failing)
    kept = [i for i, text in enumerate(TEXTS) if length(sst2._inputs.fitting([text])[0]) != broken and i != 2]

    def ask(i: int) -> Any:
        try:
            return sst2.logits([TEXTS[i]], Turns(lane, f"visitor {i}", cancel if i == 2 else None))
        except (RuntimeError, Cancelled) as error:
            return error

    held = Held(lane)
    with ThreadPoolExecutor(len(TEXTS)) as threads:
        begun = [threads.submit(ask, i) for i in range(len(TEXTS))]
        held.wait_for(len(TEXTS))
        cancel.set()
        held.release()
        found = [one.result(SOON) for one in begun]
    assert isinstance(found[1], RuntimeError)
    assert isinstance(found[2], Cancelled)
    assert sst2._inputs.fitting([TEXTS[2]])[0].ids not in seen
    assert len(kept) >= 3
    for i in kept:
        np.testing.assert_allclose(found[i], expected[i], atol=1e-5)


@pytest.mark.parametrize("click", ["word word word word!", "word " * 90], ids=["as long as the rows", "much longer"])
def test_a_click_waits_for_one_step_of_anothers_thousand_rows(
    sst2: Any, lane: Lane, monkeypatch: pytest.MonkeyPatch, click: str
) -> None:
    """The rows were there first. A click of their length joins their first step, another has the second."""
    rows = [f"{'word ' * (n % 7)}{n}" for n in range(1000)]
    expected = {click: sst2.logits([click]), rows[7]: sst2.logits([rows[7]])}
    (wanted,) = sst2._inputs.fitting([click])
    steps: list[list[list[int]]] = []
    forward = sst2.batches._forward

    def noted(pieces: Sequence[Any]) -> Any:
        steps.append([piece.ids for piece in pieces])
        return forward(pieces)

    monkeypatch.setattr(sst2.batches, "_forward", noted)
    held = Held(lane)
    with ThreadPoolExecutor(2) as threads:
        table = threads.submit(sst2.logits, rows, Turns(lane, "table"))
        held.wait_for(1000)
        clicked = threads.submit(sst2.logits, [click], Turns(lane, "click"))
        held.wait_for(1001)
        held.release()
        np.testing.assert_allclose(clicked.result(SOON), expected[click], atol=1e-5)
        np.testing.assert_allclose(table.result(SOON)[7], expected[rows[7]][0], atol=1e-5)
    assert wanted.ids in [ids for step in steps[:2] for ids in step]
    assert len(steps[0]) > 1
    assert sum(map(len, steps)) == 1001
    assert len(steps) < 100


# -- what is computed together ---------------------------------------------------------------------------


def lengths_together(lengths: Sequence[int], most: int, padding: int) -> list[list[int]]:
    batches: list[list[int]] = []
    kernel = PaddedBatches[int, int](
        lambda pieces: (batches.append(list(pieces)), pieces)[1], lambda piece: piece, most=most, padding=padding
    )
    assert kernel.results(lengths) == list(lengths)
    return batches


@given(lengths=st.lists(st.integers(1, 300), max_size=60), most=st.integers(1, 2000), padding=st.integers(0, 40))
def test_every_piece_is_computed_once_in_bounded_batches(lengths: list[int], most: int, padding: int) -> None:
    batches = lengths_together(lengths, most, padding)
    assert sorted(length for batch in batches for length in batch) == sorted(lengths)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(batch) <= most
        assert len(batch) * max(batch) - sum(batch) <= padding * (len(batch) - 1)
        if padding == 0:
            assert len(set(batch)) == 1


def test_a_piece_joins_while_its_padding_costs_less_than_a_step() -> None:
    assert lengths_together([10, 10 + PADDING, 10], 1000, PADDING) == [[10, 10], [10 + PADDING]]
    assert lengths_together([10, 10 + PADDING], 1000, PADDING) == [[10, 10 + PADDING]]
    assert lengths_together([100] * 25, 1000, PADDING) == [[100] * 10, [100] * 10, [100] * 5]


def test_a_large_step_gets_all_cores_and_a_small_one_leaves_the_other(sst2: Any) -> None:
    kernel = PaddedBatches[int, int](list, lambda piece: piece, most=1000, padding=16, all_cores_from=120)
    assert kernel.most_cores([30]) == 1
    assert kernel.most_cores([39, 40]) == 1
    assert kernel.most_cores([39, 39, 40]) > 64
    assert kernel.most_cores([120]) > 64
    assert sst2.batches.most_cores(sst2._inputs.fitting(["a text"])) == 1  # of so small a model


def test_the_scores_of_a_step_of_masks_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every token has a score for each of the vocabulary, so a large one makes steps shorter."""
    monkeypatch.setattr(masked_lm, "STEP_SCORES", 100_000)
    engine = loaded(CASES["BERT masks"], tmp_path)
    assert engine.batches.most == 100_000 // engine.model.config.vocab_size
    assert engine.fill("[MASK] " * 200, 1)  # alone it may be longer
