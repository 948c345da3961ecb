"""The reader of Marian's `.bin`: what it reads, and that it refuses everything else with one kind of error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.engines.firefox.file import CONFIG, FLOAT32, INT8, INTGEMM8, read_marian
from shared.errors import WeightsCorrupt

Tensor = tuple[str, int, tuple[int, ...], bytes]
YAML = b"dim-emb: 2\ntype: transformer\n\0"
MATRIX = np.arange(6, dtype=np.int8).reshape(3, 2)  # as stored: (out, in)


def marian_bytes(tensors: list[Tensor], version: int = 1, padding: int = 5) -> bytes:
    """A file as Marian writes it."""
    names = [name.encode() + b"\0" for name, _, _, _ in tensors]
    headers = [
        struct.pack("<4Q", len(raw), kind, len(shape), len(data))
        for raw, (_, kind, shape, data) in zip(names, tensors, strict=True)
    ]
    shapes = [struct.pack(f"<{len(shape)}i", *shape) for _, _, shape, _ in tensors]
    start = struct.pack("<2Q", version, len(tensors))
    data = [data for _, _, _, data in tensors]
    return b"".join([start, *headers, *names, *shapes, struct.pack("<Q", padding), b"\0" * padding, *data])


def int8(values: np.ndarray, multiplier: float) -> bytes:
    return values.tobytes() + struct.pack("<f", multiplier) + b"\0" * 13  # files are padded to 256 bytes


TENSORS: list[Tensor] = [
    ("Wemb", INTGEMM8, (3, 2), int8(MATRIX, 2.0)),
    ("layer_W1", INTGEMM8, (2, 3), int8(MATRIX, 4.0)),
    ("layer_W1_QuantMultA", FLOAT32, (1, 1), struct.pack("<f", 9.0)),
    ("layer_b1", FLOAT32, (1, 3), np.array([1, -2, 3], "<f4").tobytes()),
    (CONFIG, INT8, (len(YAML),), YAML),
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "model.bin"
        path.write_bytes(content)
        return path

    return write


def test_reads_what_marian_writes(write: Callable[[bytes], Path]) -> None:
    file = read_marian(write(marian_bytes(TENSORS)))
    assert file.config == {"dim-emb": 2, "type": "transformer"}
    assert set(file.tensors) == {"Wemb", "layer_W1", "layer_b1"}
    assert all(tensor.dtype == np.float32 for tensor in file.tensors.values())
    np.testing.assert_array_equal(file.tensors["Wemb"], MATRIX / 2)
    np.testing.assert_array_equal(file.tensors["layer_W1"], MATRIX.T / 4)
    np.testing.assert_array_equal(file.tensors["layer_b1"], [[1, -2, 3]])
    assert file.multipliers == {"Wemb": 2.0, "layer_W1": 4.0}


@pytest.mark.parametrize("checkpoint_id", ["firefox-translations-en-pt", "firefox-translations-pt-en"])
def test_reads_the_real_files(weights: Callable[[str], Path], checkpoint_id: str) -> None:
    file = read_marian(weights(checkpoint_id) / "model.bin")
    assert file.config["dec-cell"] == "ssru"
    assert file.tensors["Wemb"].shape == (32000, 256)
    assert file.tensors["encoder_l1_ffn_W1"].shape == (256, 1536)
    assert sum(tensor.size for tensor in file.tensors.values()) == 16_907_008
    integers = file.tensors["Wemb"] * np.float32(file.multipliers["Wemb"])
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)
    assert abs(integers).max() <= 128.01


def test_every_truncation_is_refused(write: Callable[[bytes], Path]) -> None:
    whole = marian_bytes(TENSORS)
    for size in range(len(whole)):
        with pytest.raises(WeightsCorrupt, match=r"model\.bin is not a readable Marian model"):
            read_marian(write(whole[:size]))


def test_a_truncated_real_file_is_refused(weights: Callable[[str], Path], write: Callable[[bytes], Path]) -> None:
    whole = (weights("firefox-translations-en-pt") / "model.bin").read_bytes()
    for size in (0, 20, 5_000, 12_000, len(whole) // 2, len(whole) - 1):
        with pytest.raises(WeightsCorrupt, match="ends too early"):
            read_marian(write(whole[:size]))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 400), value=st.binary(min_size=1, max_size=8))
def test_any_damage_is_refused_or_harmless(write: Callable[[bytes], Path], place: int, value: bytes) -> None:
    """Absurd sizes included: eight bytes can claim an exabyte, and nothing may be allocated for it."""
    damaged = bytearray(marian_bytes(TENSORS))
    damaged[place : place + len(value)] = value
    try:
        file = read_marian(write(bytes(damaged)))
    except WeightsCorrupt:
        return
    assert sum(tensor.nbytes for tensor in file.tensors.values()) <= 4 * len(damaged)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (TENSORS[:-1], "has no special:model.yml"),
        ([*TENSORS, TENSORS[0]], "same name"),
        ([("W", 0x0808, (1, 1), b"\0" * 8), TENSORS[-1]], "W is of type 0x808"),
        ([("W", FLOAT32, (1, 3), b"\0" * 8), TENSORS[-1]], "fewer numbers than its shape"),
        ([("W", FLOAT32, (2**30, 2**30), b"\0" * 8), TENSORS[-1]], "fewer numbers than its shape"),
        ([("W", FLOAT32, (-1, 3), b"\0" * 12), TENSORS[-1]], "has the shape"),
        ([("W", FLOAT32, (1, 1), struct.pack("<f", float("nan"))), TENSORS[-1]], "not finite"),
        ([("W", INTGEMM8, (3, 2), int8(MATRIX, 0.0)), TENSORS[-1]], "multiplier 0.0"),
        ([("W", INTGEMM8, (3, 2), int8(MATRIX, 1e-40)), TENSORS[-1]], "multiplier 9.99"),
        ([("W", INTGEMM8, (3, 2), MATRIX.tobytes()), TENSORS[-1]], "fewer numbers than its shape"),
        ([(CONFIG, INT8, (3,), b"[1]")], "not a mapping"),
        ([(CONFIG, INT8, (3,), b"{a:")], "not YAML"),
        ([(CONFIG, INT8, (2,), b"\xff\xfe")], "not YAML"),
    ],
)
def test_says_what_is_wrong(write: Callable[[bytes], Path], tensors: list[Tensor], reason: str) -> None:
    with pytest.raises(WeightsCorrupt, match=reason):
        read_marian(write(marian_bytes(tensors)))


def test_another_version_is_refused(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(WeightsCorrupt, match="version is 2"):
        read_marian(write(marian_bytes(TENSORS, version=2)))
