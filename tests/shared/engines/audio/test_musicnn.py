"""musicnn on its real weights, against what the authors' own code says of the same sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from shared.checkpoints.catalog import Catalog
from shared.engines.audio.musicnn import GENRES, TAGS, Musicnn, load, memory_bytes
from shared.engines.audio.musicnn_network import Network, expected_shapes, from_tensorflow
from shared.engines.audio.tensor_bundle import read_bundle
from shared.engines.compute import RunHere
from shared.errors import Cancelled, InvalidInput, WeightsCorrupt
from shared.settings import Settings

T = TypeVar("T")

CHECKPOINT = Catalog.read().choose_by_id("musicnn")
ORIGINAL = np.load(Path(__file__).parents[3] / "data" / "musicnn_original.npz")
NETWORKS = ["msd", "mtt"]


def signal() -> np.ndarray:
    """Six seconds at 16 kHz by formula: a chord with beats and clicks, then a rising tone. No random numbers."""
    t = np.arange(96_000) / 16_000
    notes = enumerate((110.0, 220.5, 331.0, 880.0, 3520.0))
    chord = sum(np.sin(2 * np.pi * hertz * t * (1 + 0.02 * k)) / (k + 1) for k, hertz in notes)
    rising = np.sin(2 * np.pi * (200 * t + 400 * t**2))
    beat = np.where((t % 0.5) < 0.05, np.sin(2 * np.pi * 60 * t), 0)
    beat = beat + 0.3 * np.sin(1e6 * np.sin(np.arange(96_000.0))) * ((t % 0.25) < 0.02)
    return np.where(t < 3, 0.02 * chord + 0.2 * beat, 0.03 * rising + 0.01 * chord).astype(np.float32)


@pytest.fixture(scope="module")
def engine(weights: Callable[[str], Path], settings: Settings) -> Musicnn:
    return load(CHECKPOINT, weights("musicnn"), settings, lambda *_: None)


@pytest.fixture(scope="module")
def windows() -> list[np.ndarray]:
    return [signal()[:48_000], signal()[48_000:]]


@pytest.mark.parametrize("network", NETWORKS)
def test_tags_are_those_of_the_original(engine: Musicnn, windows: list[np.ndarray], network: str) -> None:
    """From the samples on: spectrogram, network and all. TensorFlow's own sums differ as much in their last digits."""
    np.testing.assert_allclose(engine.tags(windows, network), ORIGINAL[f"{network}_tags"], atol=1e-5)


def test_features_are_those_of_the_original(engine: Musicnn, windows: list[np.ndarray]) -> None:
    expected = np.concatenate([ORIGINAL[f"{network}_penultimate"] for network in NETWORKS], axis=1)
    np.testing.assert_allclose(engine.features(windows), expected, atol=1e-4)
    assert engine.features(windows, layer="pooled").shape == (2, 3012)
    assert engine.features([]).shape == (0, 400)


def test_labels_are_genres_among_the_tags(engine: Musicnn, windows: list[np.ndarray]) -> None:
    assert engine.multi_label
    assert all(tag in TAGS[network] for network, tag in GENRES.values())
    assert all(len(tags) == len(set(tags)) == 50 for tags in TAGS.values())
    scores = 1 / (1 + np.exp(-engine.logits(windows)))
    for label, (network, tag) in enumerate(GENRES.values()):
        expected = ORIGINAL[f"{network}_tags"][:, TAGS[network].index(tag)]
        np.testing.assert_allclose(scores[:, label], expected, atol=1e-5)


def test_the_same_alone_and_together(engine: Musicnn, windows: list[np.ndarray]) -> None:
    together = engine.logits([*windows, *windows[::-1]])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together[:1], engine.logits(windows[:1]), atol=1e-5)
    np.testing.assert_allclose(together[2:], together[1::-1], atol=1e-5)
    assert engine.logits([]).shape == (0, len(engine.labels))


@pytest.mark.parametrize("samples", [1, 100, 8_000, 47_999, 160_000])
def test_windows_of_any_length_are_heard(engine: Musicnn, samples: int) -> None:
    assert np.isfinite(engine.logits([np.resize(signal(), samples)])).all()


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0])
def test_silence_and_full_scale_give_numbers(engine: Musicnn, level: float) -> None:
    assert np.isfinite(engine.logits([np.full(48_000, level, np.float32)])).all()


def test_windows_that_cannot_be_heard_are_refused(engine: Musicnn) -> None:
    with pytest.raises(InvalidInput, match="too short") as caught:
        engine.logits([np.zeros(0, np.float32)])
    assert caught.value.field == "audio"
    with pytest.raises(ValueError, match="equal length"):
        engine.logits([np.zeros(5, np.float32), np.zeros(6, np.float32)])


def test_stops_within_a_window(engine: Musicnn, windows: list[np.ndarray]) -> None:
    taken = []

    def compute(step: Callable[[], T], /) -> T:
        if len(taken) == 3:
            raise Cancelled
        taken.append(step)
        return step()

    with pytest.raises(Cancelled):
        engine.logits(windows * 5, RunHere(compute))
    assert len(taken) == 3


def test_memory_is_known_before_loading(engine: Musicnn) -> None:
    assert 0.9 * memory_bytes(CHECKPOINT) <= engine.nbytes <= memory_bytes(CHECKPOINT)


def test_another_checkpoint_is_refused(weights: Callable[[str], Path]) -> None:
    folder = weights("musicnn")
    tensors = read_bundle(folder / "msd.index", folder / "msd.data")
    with pytest.raises(WeightsCorrupt, match="dense/kernel is missing"):
        from_tensorflow({name: values for name, values in tensors.items() if name != "dense/kernel"})
    for name in ("conv2d/kernel", "conv2d_5/kernel", "dense/kernel", "batch_normalization_9/gamma"):
        with pytest.raises(WeightsCorrupt, match=f"{name} is of shape"):
            from_tensorflow({**tensors, name: np.zeros((2, 3), np.float32)})
    whole = from_tensorflow(tensors)
    assert {name: tuple(tensor.shape) for name, tensor in whole.items()} == expected_shapes()
    with pytest.raises(WeightsCorrupt, match="dense_1/bias is missing"):
        Network({name: tensor for name, tensor in whole.items() if name != "dense_1/bias"})
    with pytest.raises(WeightsCorrupt, match="dense/bias is of shape"):
        Network({**whole, "dense/bias": whole["dense_1/bias"]})
