"""A head on frozen musicnn: its sum, its file, and the one that is shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shared.checkpoints.catalog import Catalog
from shared.engines.audio import musicnn
from shared.engines.audio.musicnn_head import HEADS, WEIGHTS, WIDTHS, Head, MusicnnHead, load, memory_bytes, read_head
from shared.errors import InvalidInput, WeightsCorrupt
from shared.settings import Settings
from tests.shared.engines.audio.test_musicnn import signal

CHECKPOINT = Catalog.read().choose_by_id("latin-five")


def head(layer: Any = "penultimate", labels: tuple[str, ...] = ("a", "b", "c")) -> Head:
    chance = np.random.default_rng(1)
    width = WIDTHS[layer]
    arrays = [chance.standard_normal(shape) for shape in ((width,), (width,), (len(labels), width), (len(labels),))]
    return Head(labels, layer, *(array.astype(np.float32) for array in arrays))


@pytest.fixture(scope="module")
def engine(weights: Callable[[str], Path], settings: Settings) -> MusicnnHead:
    return load(CHECKPOINT, weights("latin-five"), settings, lambda *_: None)


@pytest.fixture(scope="module")
def windows() -> list[np.ndarray]:
    return [signal()[:48_000], signal()[48_000:]]


def test_logits_are_numpys_on_musicnns_features(engine: MusicnnHead, windows: list[np.ndarray]) -> None:
    features = engine.body.features(windows, layer=engine.head.layer)
    expected = np.stack(
        [
            [
                sum((row - engine.head.mean) * engine.head.scale * weight) + bias
                for weight, bias in zip(engine.head.weight, engine.head.bias, strict=True)
            ]
            for row in features
        ]
    )
    found = engine.logits(windows)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found.dtype == np.float32
    assert engine.logits([]).shape == (0, 6)


def test_the_shipped_head_is_what_the_catalog_says(engine: MusicnnHead) -> None:
    assert engine.labels == ("Bachata", "Cumbia", "Merengue", "Salsa", "Vallenato", "None of these")
    assert not engine.multi_label
    assert engine.sampling_rate == 16_000
    assert engine.nbytes <= memory_bytes(CHECKPOINT)
    own = engine.head
    sizes = own.weight.size + own.bias.size
    assert CHECKPOINT.parameters == Catalog.read().choose_by_id("musicnn").parameters + sizes
    assert "synthetic" in CHECKPOINT.limits
    card = (HEADS / "latin-five" / "README.md").read_text(encoding="utf-8")
    for said in ("synthetic music only", "not measured: none can be fetched here", "None of these".lower()):
        assert said in card


def test_too_short_is_said(engine: MusicnnHead) -> None:
    with pytest.raises(InvalidInput, match="too short"):
        engine.logits([np.zeros(0, np.float32)])


@pytest.mark.parametrize("layer", list(WIDTHS))
def test_what_is_written_is_read(tmp_path: Path, layer: str) -> None:
    written = head(layer)
    written.write(tmp_path / WEIGHTS)
    found = read_head(tmp_path / WEIGHTS)
    assert (found.labels, found.layer) == (written.labels, written.layer)
    features = np.random.default_rng(2).standard_normal((4, WIDTHS[layer])).astype(np.float32)
    np.testing.assert_array_equal(found(features), written(features))


def test_a_damaged_head_is_refused(tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS
    with pytest.raises(WeightsCorrupt, match="cannot be read as a head on musicnn"):
        read_head(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(WeightsCorrupt, match="head on musicnn"):
        read_head(path)
    good = head()
    Head(good.labels, good.layer, good.mean[:-1], good.scale, good.weight, good.bias).write(path)
    with pytest.raises(WeightsCorrupt, match=r"mean .* shape \(399,\), not \(400,\)"):
        read_head(path)


def test_it_asks_for_the_layer_it_reads() -> None:
    asked = []

    def features(windows: Any, compute: Any, *, layer: str) -> np.ndarray:
        asked.append(layer)
        return np.zeros((len(windows), WIDTHS[layer]), np.float32)

    body: Any = SimpleNamespace(features=features, sampling_rate=musicnn.RATE, nbytes=0)
    assert MusicnnHead(body, head("pooled")).logits([np.zeros(48_000, np.float32)]).shape == (1, 3)
    assert asked == ["pooled"]
