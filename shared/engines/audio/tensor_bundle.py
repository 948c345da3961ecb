"""Reads a TensorFlow checkpoint (a *tensor bundle*) without TensorFlow.

A bundle is two files. `.index` is a table as LevelDB writes them (`table_format.md` there): blocks of sorted keys and
values, of which the last, found through the footer, lists the others. A key is a tensor's name, its value a
`BundleEntryProto` (TensorFlow's `tensor_bundle.proto`): type, shape, and where its bytes lie in `.data`.

    footer, the last 48 bytes: handle of the metaindex, handle of the index, zeros, magic number
    handle: varint offset, varint size of a block; 5 bytes follow each block: compression, checksum
    block: entries, u32 offset of every 16th of them, u32 number of those offsets
    entry: varint bytes of the key shared with the key before, varint further bytes of the key,
           varint bytes of the value, then the further bytes and the value

The checksums are not read: the catalog's SHA-256 of both files was compared before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from shared.errors import WeightsCorrupt

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES, TRAILER_BYTES = 48, 5
HEADER_KEY = b""
"""Its value is the `BundleHeaderProto`."""
FLOAT32 = 1
"""`DT_FLOAT` of TensorFlow's `types.proto`. Tensors of other types (step counters) are left out."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""

Message = dict[int, list[int | memoryview]]
"""Field number → its values, in their order."""


def read_bundle(index: Path, data: Path) -> dict[str, np.ndarray]:
    """Every float32 tensor by name, as read-only views of the file's bytes.

    Raises `WeightsCorrupt` when the files are no tensor bundle, not all of one, or one of several data files.
    """
    try:
        return _tensors(memoryview(index.read_bytes()), memoryview(data.read_bytes()))
    except WeightsCorrupt as error:
        raise WeightsCorrupt(f"{index.name} is not a readable TensorFlow checkpoint: {error.message}") from error


def _tensors(index: memoryview, data: memoryview) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for key, value in _table(index):
        message = _message(value)
        if key == HEADER_KEY:
            if _number(message, 1) != 1 or _number(message, 2) != 0:
                raise WeightsCorrupt("it is not of one little-endian data file")
        elif _number(message, 1) == FLOAT32:
            tensors[_text(key)] = _tensor(_text(key), message, data)
    return tensors


def _tensor(name: str, entry: Message, data: memoryview) -> np.ndarray:
    shape = tuple(_number(_message(size), 1) for size in _nested(_message(*_nested(entry, 2)[:1]), 2))
    offset, size = _number(entry, 4), _number(entry, 5)
    if size != 4 * prod(shape) or offset + size > len(data):
        raise WeightsCorrupt(f"{name} has {size} bytes at {offset}, which do not hold the shape {shape}")
    values = np.frombuffer(data[offset : offset + size], "<f4").reshape(shape)
    if not np.isfinite(values).all():
        raise WeightsCorrupt(f"{name} holds numbers that are not finite")
    return values


# -- the table -----------------------------------------------------------------------------------


def _table(file: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of all blocks, in the order of the keys."""
    if len(file) < FOOTER_BYTES or struct.unpack("<Q", file[-8:])[0] != MAGIC:
        raise WeightsCorrupt("it does not end as a table does")
    footer = _Cursor(file[-FOOTER_BYTES:-8])
    for _ in range(2):
        footer.varint()  # the handle of the metaindex, which bundles leave empty
    for _, handle in _entries(_block(file, footer)):
        yield from _entries(_block(file, _Cursor(handle)))


def _block(file: memoryview, handle: _Cursor) -> memoryview:
    """The entries of a block, without what follows them."""
    offset, size = handle.varint(), handle.varint()
    if size < 4 or offset + size + TRAILER_BYTES > len(file):
        raise WeightsCorrupt("it names a block outside itself")
    if file[offset + size] != 0:
        raise WeightsCorrupt("it is compressed, which this reader does not know")
    block = file[offset : offset + size]
    restarts = 4 * (struct.unpack("<I", block[-4:])[0] + 1)
    if restarts > size:
        raise WeightsCorrupt("a block of it ends too early")
    return block[: size - restarts]


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    cursor, key = _Cursor(block), b""
    while cursor.rest:
        shared, further, size = cursor.varint(), cursor.varint(), cursor.varint()
        if shared > len(key):
            raise WeightsCorrupt("a key of it begins with more than the key before it has")
        key = key[:shared] + bytes(cursor.take(further))
        yield key, cursor.take(size)


# -- protocol buffers ----------------------------------------------------------------------------


def _message(*raw: memoryview) -> Message:
    """The fields of an encoded message; those of none, if none is there (an empty one is left out on the wire)."""
    fields: Message = {}
    for one in raw:
        cursor = _Cursor(one)
        while cursor.rest:
            tag = cursor.varint()
            if tag & 7 == VARINT:
                value: int | memoryview = cursor.varint()
            elif tag & 7 == BYTES:
                value = cursor.take(cursor.varint())
            elif tag & 7 in (FIXED32, FIXED64):
                value = cursor.take(4 if tag & 7 == FIXED32 else 8)
            else:
                raise WeightsCorrupt(f"it has a field of the wire type {tag & 7}")
            fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(message: Message, field: int) -> int:
    value = message.get(field, [0])[-1]
    if not isinstance(value, int):
        raise WeightsCorrupt("it has bytes where a number should be")
    return value


def _nested(message: Message, field: int) -> list[memoryview]:
    values = message.get(field, [])
    if any(isinstance(value, int) for value in values):
        raise WeightsCorrupt("it has a number where a message should be")
    return [value for value in values if not isinstance(value, int)]


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WeightsCorrupt("the name of a tensor is not text") from error


class _Cursor:
    """Takes bytes off the front and refuses to go past the end."""

    def __init__(self, content: memoryview) -> None:
        self.rest = content

    def take(self, size: int) -> memoryview:
        if size > len(self.rest):
            raise WeightsCorrupt("it ends too early")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def varint(self) -> int:
        """Seven bits a byte, the low ones first; at most 64 bits."""
        value = 0
        for place in range(10):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value
        raise WeightsCorrupt("it has a number of more than 64 bits")
