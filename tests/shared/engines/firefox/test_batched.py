"""The fast engine for Marian's models writes what the reference writes, alone and in company."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.checkpoints.catalog import Catalog
from shared.engines.firefox import batched
from shared.engines.firefox import reference as reference_module
from shared.engines.firefox.batched import BatchedFirefoxTranslator
from shared.engines.firefox.reference import TorchFirefoxTranslator
from shared.scheduling.lane import Lane
from shared.settings import Settings
from tests.shared.engines.decoders.test_batched import Turns
from tests.shared.engines.firefox.test_reference import EN_PT

SENTENCES = [english for english, _ in EN_PT] + ["Yes.", "🙂", "A dog, a cat, and " * 40 + "a bird."]


@pytest.fixture(scope="module")
def loaded(settings: Settings, weights: Callable[[str], Path]) -> Callable[[Any], Any]:
    checkpoint = Catalog.read().choose_by_id("firefox-translations-en-pt")
    return lambda module: module.load(checkpoint, weights(checkpoint.id), settings, lambda *_: None)


@pytest.fixture(scope="module")
def fast(loaded: Callable[[Any], Any]) -> BatchedFirefoxTranslator:
    return loaded(batched)


@pytest.fixture(scope="module")
def reference(loaded: Callable[[Any], Any]) -> TorchFirefoxTranslator:
    return loaded(reference_module)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_texts_and_scores_are_the_references(
    fast: BatchedFirefoxTranslator, reference: TorchFirefoxTranslator, num_beams: int
) -> None:
    assert fast.name == "compiled-int8"
    ours, theirs = fast.translate(SENTENCES, num_beams), reference.translate(SENTENCES, num_beams)
    assert [found.text for found in ours] == [found.text for found in theirs]
    assert [found.new_tokens for found in ours] == [found.new_tokens for found in theirs]
    assert [f.log_probability for f in ours] == pytest.approx([f.log_probability for f in theirs], abs=1e-4)


def test_visitors_at_once_get_what_each_would_get_alone(
    fast: BatchedFirefoxTranslator, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, sizes = Lane(2, width=2), []
    network = fast.decoder.network
    write = network.write

    def noted(lines: Any, *others: Any) -> Any:
        sizes.append(len(lines))
        return write(lines, *others)

    monkeypatch.setattr(network, "write", noted)
    with ThreadPoolExecutor(8) as threads:
        begun = [threads.submit(fast.translate, [text], 1, Turns(lane, text)) for text in SENTENCES]
        together = [one.result(60)[0] for one in begun]
    lane.close()
    assert together == [fast.translate([text])[0] for text in SENTENCES], "to the last bit of their scores"
    assert max(sizes) > 1


def test_a_long_sentence_and_a_short_one_end_each_at_its_own_time(fast: BatchedFirefoxTranslator) -> None:
    short, long = fast.translate(["Yes.", "The children are playing in the garden behind the old house."])
    assert short.new_tokens < long.new_tokens
    assert short.text == fast.translate(["Yes."])[0].text


def test_the_reference_answers_where_it_is_set(settings: Settings, weights: Callable[[str], Path]) -> None:
    checkpoint = Catalog.read().choose_by_id("firefox-translations-en-pt")
    plain = settings.model_copy(update={"engines": "reference"})
    engine = batched.load(checkpoint, weights(checkpoint.id), plain, lambda *_: None)
    assert isinstance(engine, TorchFirefoxTranslator)


def test_tokens_and_places_that_the_network_does_not_have_are_refused(fast: BatchedFirefoxTranslator) -> None:
    network = fast.decoder.network
    for source in ([len(network.decoder.vocabulary.bias)], [-1], [5] * (len(network.decoder.positions) + 1)):
        with pytest.raises(IndexError):
            network.read([source])
    with pytest.raises(IndexError):
        network.write(network.read([[5, 0]]), [len(network.decoder.positions) + 1], 0, 8)
