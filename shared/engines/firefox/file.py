"""Reads the weights of a Marian model from its `.bin` file.

Layout, little-endian, as in Marian's `src/common/binary.cpp`:

    u64 version (1)   u64 number of tensors
    per tensor: u64 bytes of its name, u64 type, u64 number of dimensions, u64 bytes of its data
    the names, each ended by a zero byte
    the shapes, i32 per dimension
    u64 bytes of padding, then the padding, then the data of each tensor in turn

An intgemm int8 tensor is its int8 values followed by one float32 multiplier; a weight is int8 / multiplier.
intgemm keeps the second factor of a product column by column, so a matrix of shape (in, out) lies in
the file as (out, in); only the embeddings, which are also looked up by row, lie as their shape says.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from shared.errors import WeightsCorrupt

FLOAT32, INT8, INTGEMM8 = 0x0404, 0x0101, 0x4101
CONFIG = "special:model.yml"
EMBEDDINGS = "Wemb"
ACTIVATION_RANGE = "_QuantMultA"
"""Suffix of the ranges that intgemm's kernels clip activations to; computing in floats needs none."""
MOST_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class MarianFile:
    """Everything a `.bin` holds. Matrices have shape (in, out), embeddings (vocabulary, dimensions)."""

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    """float32."""
    multipliers: dict[str, float]
    """Of the tensors that were stored as int8: `tensor * multiplier` gives the stored integers."""


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    type: int
    shape: tuple[int, ...]
    data: memoryview


def read_marian(path: Path) -> MarianFile:
    """Reads and checks the whole file. Raises `WeightsCorrupt` when it is not a Marian model or not all of one."""
    try:
        return _assemble(_items(memoryview(path.read_bytes())))
    except WeightsCorrupt as error:
        raise WeightsCorrupt(f"{path.name} is not a readable Marian model: {error.message}") from error


def _assemble(items: list[_Item]) -> MarianFile:
    config: dict[str, Any] | None = None
    tensors: dict[str, np.ndarray] = {}
    multipliers: dict[str, float] = {}
    for item in items:
        if item.name == CONFIG:
            config = _config(item.data)
        elif item.name.endswith(ACTIVATION_RANGE):
            continue
        elif item.type == FLOAT32:
            tensors[item.name] = _float_tensor(item)
        elif item.type == INTGEMM8:
            tensors[item.name], multipliers[item.name] = _int8_tensor(item)
        else:
            raise WeightsCorrupt(f"{item.name} is of type {item.type:#x}, which this reader does not know")
    if config is None:
        raise WeightsCorrupt(f"it has no {CONFIG}")
    return MarianFile(config, tensors, multipliers)


def _items(content: memoryview) -> list[_Item]:
    """The tensors as views of the file's own bytes, so no number in a broken header can make us allocate."""
    cursor = _Cursor(content)
    version, count = cursor.numbers("Q", 2)
    if version != 1:
        raise WeightsCorrupt(f"its version is {version}, not 1")
    headers = [cursor.numbers("Q", 4) for _ in cursor.at_most(count, bytes_each=32)]
    names = [_name(cursor.take(name_bytes)) for name_bytes, _, _, _ in headers]
    if len(set(names)) != len(names):
        raise WeightsCorrupt("two of its tensors have the same name")
    shapes = []
    for name, (_, _, dimensions, _) in zip(names, headers, strict=True):
        if dimensions > MOST_DIMENSIONS:
            raise WeightsCorrupt(f"{name} has {dimensions} dimensions")
        shapes.append(cursor.numbers("i", dimensions))
    (padding,) = cursor.numbers("Q", 1)
    cursor.take(padding)
    items = []
    for name, shape, (_, kind, _, data_bytes) in zip(names, shapes, headers, strict=True):
        if not shape or min(shape) < 1:
            raise WeightsCorrupt(f"{name} has the shape {shape}")
        items.append(_Item(name, kind, shape, cursor.take(data_bytes)))
    return items


class _Cursor:
    """Takes bytes off the front of the file and refuses to go past its end."""

    def __init__(self, content: memoryview) -> None:
        self.rest = content

    def take(self, size: int) -> memoryview:
        if size > len(self.rest):
            raise WeightsCorrupt("it ends too early")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def numbers(self, code: str, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}")))

    def at_most(self, count: int, bytes_each: int) -> range:
        """`range(count)`, if that many things can still follow."""
        if count * bytes_each > len(self.rest):
            raise WeightsCorrupt("it ends too early")
        return range(count)


def _name(raw: memoryview) -> str:
    try:
        return bytes(raw).removesuffix(b"\0").decode("utf-8")
    except UnicodeDecodeError as error:
        raise WeightsCorrupt("the name of a tensor is not text") from error


def _config(data: memoryview) -> dict[str, Any]:
    try:
        config = yaml.safe_load(bytes(data).rstrip(b"\0").decode("utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise WeightsCorrupt(f"its {CONFIG} is not YAML") from error
    if not isinstance(config, dict):
        raise WeightsCorrupt(f"its {CONFIG} is not a mapping")
    return config


def _float_tensor(item: _Item) -> np.ndarray:
    values = _values(item, np.dtype("<f4"), prod(item.shape)).reshape(item.shape).astype(np.float32)
    if not np.isfinite(values).all():
        raise WeightsCorrupt(f"{item.name} holds numbers that are not finite")
    return values


LEAST_MULTIPLIER = 128 / float(np.finfo(np.float32).max)
"""With a smaller one a weight would be infinite."""


def _int8_tensor(item: _Item) -> tuple[np.ndarray, float]:
    size = prod(item.shape)
    integers = _values(item, np.dtype("i1"), size)
    multiplier = float(_values(item, np.dtype("<f4"), 1, offset=size)[0])
    if not LEAST_MULTIPLIER <= multiplier < np.inf:
        raise WeightsCorrupt(f"{item.name} has the multiplier {multiplier}")
    if item.name == EMBEDDINGS or len(item.shape) != 2:
        integers = integers.reshape(item.shape)
    else:
        integers = integers.reshape(item.shape[::-1]).T
    return integers.astype(np.float32) / np.float32(multiplier), multiplier


def _values(item: _Item, dtype: np.dtype, count: int, offset: int = 0) -> np.ndarray:
    if offset + count * dtype.itemsize > len(item.data):
        raise WeightsCorrupt(f"{item.name} has fewer numbers than its shape {item.shape} says")
    return np.frombuffer(item.data, dtype, count, offset)
