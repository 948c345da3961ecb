"""The audio classifier agrees with transformers, and refuses what was never taught its labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

from shared.engines.audio import audio_classifier
from shared.engines.audio.audio_classifier import TorchAudioClassifier, memory_bytes
from shared.engines.compute import RunHere
from shared.errors import Cancelled, InvalidInput, WeightsCorrupt
from shared.settings import Settings
from tests.tiny_checkpoints.encoders import GENRES, wav2vec2_base, wav2vec2_genres
from tests.tiny_checkpoints.entry import entry
from tests.tiny_checkpoints.weights import renamed

T = TypeVar("T")

RATE = 16_000


def sounds(count: int, seconds: float = 1.0) -> list[np.ndarray]:
    """Chords with some noise, each of another loudness."""
    draw, time = np.random.default_rng(0), np.arange(int(seconds * RATE)) / RATE
    found = []
    for _ in range(count):
        chord = sum(np.sin(2 * np.pi * pitch * time) for pitch in draw.uniform(80, 2000, 3))
        wave = draw.uniform(0.05, 0.3) * (chord + draw.normal(0, 0.3, time.shape)) + draw.uniform(-0.1, 0.1)
        found.append(wave.clip(-1, 1).astype(np.float32))
    return found


def load(folder: Path, **changes: Any) -> TorchAudioClassifier:
    return audio_classifier.load(entry(**changes), folder, Settings(), lambda *_: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wav2vec2_genres(tmp_path_factory.mktemp("genres"))


@pytest.fixture(scope="module")
def genres(folder: Path) -> TorchAudioClassifier:
    return load(folder)


def theirs(folder: Path, windows: list[np.ndarray]) -> np.ndarray:
    """Logits of transformers' own feature extractor and model, one window at a time."""
    features: Any = AutoFeatureExtractor.from_pretrained(folder)
    model: Any = AutoModelForAudioClassification.from_pretrained(folder)
    with torch.inference_mode():
        rows = [
            model(**features(window, sampling_rate=features.sampling_rate, return_tensors="pt")).logits[0]
            for window in windows
        ]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("seconds", [0.1, 1.0, 3.0])
def test_logits_are_those_of_transformers(genres: TorchAudioClassifier, folder: Path, seconds: float) -> None:
    windows = sounds(5, seconds)
    found = genres.logits(windows)
    assert found.shape == (5, 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, theirs(folder, windows), atol=1e-3)
    assert np.ptp(found, axis=0).max() > 0.5  # they do depend on the sound


def test_labels_are_what_the_pipeline_says(genres: TorchAudioClassifier, folder: Path) -> None:
    classify: Any = pipeline("audio-classification", model=str(folder), top_k=5)
    for window, row in zip(sounds(3), genres.logits(sounds(3)), strict=True):
        expected = {found["label"]: found["score"] for found in classify(window)}
        probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        assert dict(zip(genres.labels, probabilities, strict=True)) == pytest.approx(expected, abs=1e-4)


def test_it_says_what_it_is(genres: TorchAudioClassifier) -> None:
    assert genres.labels == GENRES
    assert genres.sampling_rate == RATE
    assert genres.multi_label is False
    assert genres.nbytes == memory_bytes(entry(parameters=genres.model.num_parameters()))
    assert genres.name == "torch-fp32"


def test_loudness_does_not_matter_where_the_checkpoint_normalises(genres: TorchAudioClassifier) -> None:
    (window,) = sounds(1)
    np.testing.assert_allclose(genres.logits([window * 0.1]), genres.logits([window]), atol=1e-2)


def test_the_preprocessor_config_is_followed(tmp_path: Path) -> None:
    folder = wav2vec2_genres(tmp_path)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "do_normalize": False, "sampling_rate": 8000}))
    engine, windows = load(folder), sounds(3)
    assert engine.sampling_rate == 8000
    np.testing.assert_allclose(engine.logits(windows), theirs(folder, windows), atol=1e-3)
    assert np.abs(engine.logits([windows[0] * 0.1]) - engine.logits([windows[0]])).max() > 0.05


def test_independent_labels_are_known_from_the_config(tmp_path: Path) -> None:
    folder = wav2vec2_genres(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    assert load(folder).multi_label is True


def test_a_batch_is_a_step_and_changes_nothing(genres: TorchAudioClassifier) -> None:
    windows, taken = sounds(25), 0

    def compute(step: Callable[[], T], /) -> T:
        nonlocal taken
        taken += 1
        return step()

    found = genres.logits(windows, RunHere(compute))
    assert taken == 3  # of ten seconds each
    np.testing.assert_allclose(found, np.concatenate([genres.logits([one]) for one in windows]), atol=1e-3)
    taken = 0
    genres.logits(sounds(2, 12.0), RunHere(compute))
    assert taken == 2


def test_a_cancelled_request_stops_at_the_next_batch(genres: TorchAudioClassifier) -> None:
    taken = 0

    def compute(step: Callable[[], T], /) -> T:
        nonlocal taken
        if taken == 1:
            raise Cancelled
        taken += 1
        return step()

    with pytest.raises(Cancelled):
        genres.logits(sounds(25), RunHere(compute))
    assert taken == 1


def test_silence_and_no_sound_at_all(genres: TorchAudioClassifier) -> None:
    assert np.isfinite(genres.logits([np.zeros(RATE, dtype=np.float32)])).all()
    assert genres.logits([]).shape == (0, 5)
    for samples in (0, 1, 399):
        with pytest.raises(InvalidInput) as refused:
            genres.logits([np.zeros(samples, dtype=np.float32)])
        assert refused.value.field == "audio"
    assert np.isfinite(genres.logits([np.ones(400, dtype=np.float32)])).all()


def test_windows_of_unequal_length_are_a_mistake_of_the_caller(genres: TorchAudioClassifier) -> None:
    with pytest.raises(ValueError, match="equal length"):
        genres.logits([np.zeros(1000, dtype=np.float32), np.zeros(1001, dtype=np.float32)])


def test_a_checkpoint_that_was_only_pretrained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsCorrupt, match=r"not trained for audio classification.*fine-tuned first"):
        load(wav2vec2_base(tmp_path))


def test_a_head_without_its_projection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsCorrupt, match=r"lack projector\.bias, projector\.weight\."):
        load(renamed(wav2vec2_genres(tmp_path), {r"^projector\..*": ""}))


def test_weights_under_their_older_names_are_read(genres: TorchAudioClassifier, tmp_path: Path) -> None:
    """As wav2vec2-base is published: the positional convolution's weight norm was named weight_g and weight_v."""
    old = {r"parametrizations\.weight\.original0": "weight_g", r"parametrizations\.weight\.original1": "weight_v"}
    found = load(renamed(wav2vec2_genres(tmp_path), old)).logits(sounds(2))
    np.testing.assert_allclose(found, genres.logits(sounds(2)), atol=1e-3)


@pytest.mark.parametrize(
    "content", [None, "", "[]", '{"sampling_rate": 0, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}']
)
def test_a_missing_or_damaged_preprocessor_config_is_named(tmp_path: Path, content: str | None) -> None:
    folder = wav2vec2_genres(tmp_path)
    (folder / "preprocessor_config.json").unlink()
    if content is not None:
        (folder / "preprocessor_config.json").write_text(content)
    with pytest.raises(WeightsCorrupt, match=r"preprocessor_config\.json"):
        load(folder)
