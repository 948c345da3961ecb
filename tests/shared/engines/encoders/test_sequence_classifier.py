"""The sequence classifier agrees with transformers, however the texts are cut and put into batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from shared.engines.encoders import sequence_classifier
from shared.engines.encoders.sequence_classifier import TorchSequenceClassifier, memory_bytes
from shared.engines.pretrained.length_batches import step_tokens
from shared.errors import Cancelled, InvalidInput, WeightsCorrupt
from shared.settings import Settings
from tests.shared.engines.steps import Steps
from tests.tiny_checkpoints.encoders import bart_order_mnli, distilbert_sst2, roberta_mnli
from tests.tiny_checkpoints.entry import entry

TEXTS = [
    "I love teaching machine learning!",
    "A terrible, boring film.",
    "",
    "Der Fluß ist groß 🙂 生活就像一盒巧克力。 naïve",
    "word " * 700,
    "x",
]
PAIRS = [(text, f"This example is about {label}.") for text in TEXTS for label in ("sports", "politics and the sea")]


def load(folder: Path, **changes: Any) -> TorchSequenceClassifier:
    return sequence_classifier.load(entry(**changes), folder, Settings(), lambda *_: None)


@pytest.fixture(scope="module")
def mnli_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return roberta_mnli(tmp_path_factory.mktemp("mnli"))


@pytest.fixture(scope="module")
def mnli(mnli_folder: Path) -> TorchSequenceClassifier:
    return load(mnli_folder)


@pytest.fixture(scope="module")
def sst2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distilbert_sst2(tmp_path_factory.mktemp("sst2"))


@pytest.fixture(scope="module")
def sst2(sst2_folder: Path) -> TorchSequenceClassifier:
    return load(sst2_folder)


def theirs(folder: Path, inputs: list[Any], max_tokens: int = 512) -> np.ndarray:
    """Logits of transformers' own tokenizer and model, one input at a time."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    rows = []
    for one in inputs:
        texts = (one,) if isinstance(one, str) else one
        encoded = tokenizer(*texts, truncation="only_first", max_length=max_tokens, return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(**encoded).logits[0].numpy())
    return np.stack(rows)


def test_logits_of_pairs_are_those_of_transformers(mnli: TorchSequenceClassifier, mnli_folder: Path) -> None:
    found = mnli.logits(PAIRS)
    assert found.shape == (len(PAIRS), 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, theirs(mnli_folder, PAIRS), atol=1e-4)
    assert np.ptp(found, axis=0).min() > 0.5  # they do depend on the texts


def test_logits_of_single_texts_are_those_of_transformers(sst2: TorchSequenceClassifier, sst2_folder: Path) -> None:
    np.testing.assert_allclose(sst2.logits(TEXTS), theirs(sst2_folder, TEXTS), atol=1e-4)


def test_sentiment_is_what_the_pipeline_says(sst2: TorchSequenceClassifier, sst2_folder: Path) -> None:
    classify: Any = pipeline("text-classification", model=str(sst2_folder), top_k=None)
    for text, row in zip(TEXTS[:4], sst2.logits(TEXTS[:4]), strict=True):
        probabilities = np.exp(row) / np.exp(row).sum()
        expected = {found["label"]: found["score"] for found in classify(text)[0]}
        assert dict(zip(sst2.labels, probabilities, strict=True)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("make", [roberta_mnli, bart_order_mnli])
def test_zero_shot_by_entailment_is_what_the_pipeline_says(make: Callable[[Path], Path], tmp_path: Path) -> None:
    folder, labels = make(tmp_path), ["sports", "politics", "travel"]
    classify: Any = pipeline("zero-shot-classification", model=str(folder))
    expected = classify(TEXTS[0], candidate_labels=labels, hypothesis_template="This text is about {}.")
    engine = load(folder)
    place = [label.lower() for label in engine.labels].index("entailment")
    entails = np.exp(engine.logits([(TEXTS[0], f"This text is about {label}.") for label in labels])[:, place])
    found = dict(zip(labels, entails / entails.sum(), strict=True))
    assert found == pytest.approx(dict(zip(expected["labels"], expected["scores"], strict=True)), abs=1e-4)


def test_labels_come_from_the_config_in_its_order(mnli: TorchSequenceClassifier, tmp_path: Path) -> None:
    assert mnli.labels == ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
    assert load(bart_order_mnli(tmp_path)).labels == ("entailment", "neutral", "contradiction")


def test_labels_are_ordered_by_number_and_not_as_written(mnli_folder: Path, tmp_path: Path) -> None:
    folder = roberta_mnli(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"2": "ENTAILMENT", "0": "CONTRADICTION", "1": "NEUTRAL"}
    (folder / "config.json").write_text(json.dumps(config))
    assert load(folder).labels == ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
    config["id2label"] = {"0": "a", "1": "b", "3": "c"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsCorrupt, match="none for number 2"):
        load(folder)


def test_a_text_has_the_same_logits_alone_and_among_others(mnli: TorchSequenceClassifier) -> None:
    alone = np.concatenate([mnli.logits([pair]) for pair in PAIRS])
    np.testing.assert_allclose(mnli.logits(PAIRS), alone, atol=1e-4)
    np.testing.assert_allclose(mnli.logits(PAIRS[::-1])[::-1], alone, atol=1e-4)


def test_bounded_batches_change_nothing(mnli: TorchSequenceClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = mnli.logits(PAIRS)
    monkeypatch.setattr(mnli.batches, "most", 1)
    steps = Steps()
    np.testing.assert_allclose(mnli.logits(PAIRS, steps), expected, atol=1e-4)
    assert steps.taken == len(PAIRS)


def test_a_batch_is_a_step_and_a_large_model_takes_smaller_ones(mnli: TorchSequenceClassifier) -> None:
    steps = Steps()
    mnli.logits([("short", "pair")] * 40, steps)
    assert steps.taken == 1
    assert 100 < step_tokens(355_000_000) < 512 < step_tokens(66_000_000) < step_tokens(10_000)


def test_a_cancelled_request_stops_at_the_next_batch(
    mnli: TorchSequenceClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnli.batches, "most", 1)
    steps = Steps(stop_after=2)
    with pytest.raises(Cancelled):
        mnli.logits(PAIRS, steps)
    assert steps.taken == 2


def test_the_first_text_of_a_pair_is_cut_and_the_second_is_not(mnli: TorchSequenceClassifier) -> None:
    end = "This example is about politics."
    long, longer = mnli.logits([("boring " * 600, end), ("boring " * 600 + "I love it!", end)])
    np.testing.assert_allclose(long, longer, atol=1e-5)
    other, _ = mnli.logits([("boring " * 600, "This example is about sports."), ("", "")])
    assert np.abs(other - long).max() > 0.05


def test_a_second_text_that_fills_the_window_is_refused(mnli: TorchSequenceClassifier) -> None:
    with pytest.raises(InvalidInput, match="508"):
        mnli.logits([("A text.", "sport " * 600)])


def test_the_window_is_that_of_the_positions_that_exist(mnli_folder: Path, sst2_folder: Path) -> None:
    assert load(mnli_folder, context_window=10_000).max_tokens == 512  # of 514 positions, two are never used
    assert load(sst2_folder, context_window=10_000).max_tokens == 512
    small = load(mnli_folder, context_window=32)
    assert small.max_tokens == 32
    np.testing.assert_allclose(small.logits(PAIRS), theirs(mnli_folder, PAIRS, max_tokens=32), atol=1e-4)


def test_a_vocabulary_without_tokenizer_json_will_do(sst2: TorchSequenceClassifier, tmp_path: Path) -> None:
    """As DistilBERT SST-2 is published: vocab.txt alone."""
    folder = distilbert_sst2(tmp_path)
    (folder / "tokenizer.json").unlink()
    np.testing.assert_allclose(load(folder).logits(TEXTS), sst2.logits(TEXTS), atol=1e-5)


def test_many_threads_may_ask_at_once(mnli: TorchSequenceClassifier) -> None:
    expected = mnli.logits(PAIRS[:4])
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: mnli.logits(PAIRS[:4]), range(40)):
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_no_texts_and_tokens_counted_without_markers(sst2: TorchSequenceClassifier) -> None:
    assert sst2.logits([]).shape == (0, 2)
    assert sst2.count_tokens([]) == []
    assert sst2.count_tokens(["capital", "capital of", "", "capital " * 900]) == [1, 2, 0, 900]


def test_memory_is_known_before_loading(mnli_folder: Path, mnli: TorchSequenceClassifier) -> None:
    assert mnli.nbytes == memory_bytes(entry(parameters=mnli.model.num_parameters()))
    assert mnli.name == "torch-fp32"
    assert mnli.model.dtype == torch.float32
    assert not mnli.model.training
