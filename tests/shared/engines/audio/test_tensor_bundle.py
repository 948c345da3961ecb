"""The reader of TensorFlow's checkpoints: what it reads, and that it refuses everything else with one kind of error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.engines.audio.tensor_bundle import FLOAT32, MAGIC, read_bundle
from shared.errors import WeightsCorrupt

INT64 = 9
MATRIX = np.arange(6, dtype="<f4").reshape(2, 3) - 2.5
SCALAR = np.array(300.5, dtype="<f4")

Write = Callable[[bytes, bytes], dict[str, np.ndarray]]


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def nested(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def entry(kind: int, shape: tuple[int, ...], offset: int, size: int) -> bytes:
    sizes = b"".join(nested(2, number(1, n)) for n in shape)
    checksum = varint(6 << 3 | 5) + b"\1\2\3\4"
    return number(1, kind) + nested(2, sizes) + number(4, offset) + number(5, size) + checksum


def block(rows: list[tuple[bytes, bytes]], compression: int = 0) -> bytes:
    """Keys are shortened by what they share with the one before, as LevelDB does."""
    out, before = b"", b""
    for key, value in rows:
        shared = next(
            (i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), min(map(len, (key, before)))
        )
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + struct.pack("<2I", 0, 1) + bytes([compression]) + b"\0" * 4


def table(blocks: list[list[tuple[bytes, bytes]]], compression: int = 0) -> bytes:
    """An index file of these blocks."""
    file, handles = b"", []
    for rows in blocks:
        content = block(rows, compression)
        handles.append((rows[-1][0], varint(len(file)) + varint(len(content) - 5)))
        file += content
    index = block(handles)
    footer = varint(0) + varint(0) + varint(len(file)) + varint(len(index) - 5)
    return file + index + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


HEADER = (b"", number(1, 1) + nested(3, number(1, 1)))
ROWS = [
    (b"layer/bias", entry(FLOAT32, (), 24, 4)),
    (b"layer/kernel", entry(FLOAT32, (2, 3), 0, 24)),
    (b"step", entry(INT64, (), 28, 8)),
]
DATA = MATRIX.tobytes() + SCALAR.tobytes() + struct.pack("<q", 7)


@pytest.fixture
def read(tmp_path: Path) -> Write:
    def read(index: bytes, data: bytes) -> dict[str, np.ndarray]:
        (tmp_path / "x.index").write_bytes(index)
        (tmp_path / "x.data").write_bytes(data)
        return read_bundle(tmp_path / "x.index", tmp_path / "x.data")

    return read


@pytest.mark.parametrize("blocks", [[[HEADER, *ROWS]], [[HEADER, ROWS[0]], ROWS[1:]]])
def test_reads_what_tensorflow_writes(read: Write, blocks: list[list[tuple[bytes, bytes]]]) -> None:
    tensors = read(table(blocks), DATA)
    assert set(tensors) == {"layer/bias", "layer/kernel"}
    np.testing.assert_array_equal(tensors["layer/kernel"], MATRIX)
    assert tensors["layer/bias"] == 300.5
    assert tensors["layer/bias"].shape == ()


@pytest.mark.parametrize("network", ["msd", "mtt"])
def test_reads_the_real_files(weights: Callable[[str], Path], network: str) -> None:
    folder = weights("musicnn")
    tensors = read_bundle(folder / f"{network}.index", folder / f"{network}.data")
    assert tensors["conv2d/kernel"].shape == (7, 38, 1, 204)
    assert tensors["dense/kernel"].shape == (1506, 200)
    assert (tensors["batch_normalization_1/moving_variance"] > 0).all()
    # Weights, and two moments of each that the optimizer kept.
    assert "dense/kernel/Adam_1" in tensors
    trained = [name.removesuffix("/Adam") for name in tensors if name.endswith("/Adam")]
    assert all(tensors[f"{name}/Adam"].shape == tensors[name].shape for name in trained)
    assert sum(tensors[name].size for name in trained) == 787_159


def test_every_truncation_is_refused(read: Write) -> None:
    whole = table([[HEADER, *ROWS]])
    for size in range(len(whole)):
        with pytest.raises(WeightsCorrupt, match=r"x\.index is not a readable TensorFlow checkpoint"):
            read(whole[:size], DATA)
    for size in range(28):
        with pytest.raises(WeightsCorrupt, match="do not hold the shape"):
            read(whole, DATA[:size])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 250), value=st.binary(min_size=1, max_size=8))
def test_any_damage_is_refused_or_harmless(read: Write, place: int, value: bytes) -> None:
    """Absurd sizes included: nothing may be allocated for what a broken header claims."""
    damaged = bytearray(table([[HEADER, *ROWS]]))
    damaged[place : place + len(value)] = value
    try:
        tensors = read(bytes(damaged), DATA)
    except WeightsCorrupt:
        return
    assert sum(tensor.nbytes for tensor in tensors.values()) <= 3 * len(DATA)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (table([[HEADER, *ROWS]], compression=1), "is compressed"),
        (table([[(b"", number(1, 2)), *ROWS]]), "one little-endian data file"),
        (table([[(b"", number(1, 1) + number(2, 1)), *ROWS]]), "one little-endian data file"),
        (table([[HEADER, (b"w", entry(FLOAT32, (2**20, 2**40), 0, 24))]]), "do not hold the shape"),
        (table([[HEADER, (b"w", entry(FLOAT32, (2, 3), 2**60, 24))]]), "do not hold the shape"),
        (table([[HEADER, (b"\xff", entry(FLOAT32, (2, 3), 0, 24))]]), "not text"),
        (table([[HEADER, (b"w", b"\x0b")]]), "wire type 3"),
        (table([[HEADER, (b"w", b"\xff" * 11)]]), "more than 64 bits"),
        (table([[HEADER, (b"w", nested(1, b"ab"))]]), "bytes where a number"),
        (table([[HEADER, (b"w", number(1, 1) + number(2, 1))]]), "number where a message"),
    ],
)
def test_says_what_is_wrong(read: Write, index: bytes, reason: str) -> None:
    with pytest.raises(WeightsCorrupt, match=reason):
        read(index, DATA)


def test_numbers_that_are_not_finite_are_refused(read: Write) -> None:
    with pytest.raises(WeightsCorrupt, match="layer/kernel holds numbers that are not finite"):
        read(table([[HEADER, *ROWS]]), struct.pack("<f", float("nan")) + DATA[4:])
