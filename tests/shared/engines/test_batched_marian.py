"""The fast engine for Marian's models writes what the reference writes, alone and in company."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.catalog import Catalog
from shared.engines import batched_marian, marian
from shared.engines.batched_marian import BatchedMarianTranslator
from shared.engines.marian import MarianTranslator
from shared.lane import Lane
from shared.settings import Settings
from tests.shared.engines.test_batched_causal_lm import Turns
from tests.shared.engines.test_marian import EN_PT
from tests.shared.engines.test_sentence_encoder import needs_int8

pytestmark = needs_int8

SENTENCES = [english for english, _ in EN_PT] + ["Yes.", "🙂", "A dog, a cat, and " * 40 + "a bird."]


@pytest.fixture(scope="module")
def loaded(settings: Settings, weights: Callable[[str], Path]) -> Callable[[Any], Any]:
    checkpoint = Catalog.read().choose_by_id("firefox-translations-en-pt")
    return lambda module: module.load(checkpoint, weights(checkpoint.id), settings, lambda *_: None)


@pytest.fixture(scope="module")
def fast(loaded: Callable[[Any], Any]) -> BatchedMarianTranslator:
    return loaded(batched_marian)


@pytest.fixture(scope="module")
def reference(loaded: Callable[[Any], Any]) -> MarianTranslator:
    return loaded(marian)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_texts_and_scores_are_the_references(
    fast: BatchedMarianTranslator, reference: MarianTranslator, num_beams: int
) -> None:
    assert fast.name == "torch-int8"
    ours, theirs = fast.translate(SENTENCES, num_beams), reference.translate(SENTENCES, num_beams)
    assert [found.text for found in ours] == [found.text for found in theirs]
    assert [found.new_tokens for found in ours] == [found.new_tokens for found in theirs]
    assert [f.log_probability for f in ours] == pytest.approx([f.log_probability for f in theirs], abs=2e-3)


def test_visitors_at_once_get_what_each_would_get_alone(fast: BatchedMarianTranslator) -> None:
    lane, sizes = Lane(2, width=2), []
    step = fast.decoder.step

    def noted(newest: Any, places: Any, cells: Any, lines: Any) -> Any:
        sizes.append(len(lines))
        return step(newest, places, cells, lines)

    fast.decoder.step = noted  # type: ignore[method-assign]
    with ThreadPoolExecutor(8) as threads:
        begun = [threads.submit(fast.translate, [text], 1, Turns(lane, text)) for text in SENTENCES]
        together = [one.result(60)[0].text for one in begun]
    lane.close()
    fast.decoder.step = step  # type: ignore[method-assign]
    assert together == [fast.translate([text])[0].text for text in SENTENCES]
    assert max(sizes) > 1


def test_a_long_sentence_and_a_short_one_end_each_at_its_own_time(fast: BatchedMarianTranslator) -> None:
    short, long = fast.translate(["Yes.", "The children are playing in the garden behind the old house."])
    assert short.new_tokens < long.new_tokens
    assert short.text == fast.translate(["Yes."])[0].text


def test_the_reference_answers_where_it_is_set(settings: Settings, weights: Callable[[str], Path]) -> None:
    checkpoint = Catalog.read().choose_by_id("firefox-translations-en-pt")
    plain = settings.model_copy(update={"engines": "reference"})
    engine = batched_marian.load(checkpoint, weights(checkpoint.id), plain, lambda *_: None)
    assert isinstance(engine, MarianTranslator)
