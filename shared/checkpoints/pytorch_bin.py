"""Converts weights that were published as a Python pickle (`pytorch_model.bin`) to safetensors, and runs no code in it.

A pickle can hold code. `torch.load(weights_only=True)` builds tensors and plain containers and refuses everything else,
so a hostile file ends in an error; no other way to read a pickle is used here.

A file of torch's present format, a zip, is mapped into memory and written from there, without a copy. One of the format
before torch 1.6 has to be read whole, which takes as much memory as it has bytes.

The libraries' own functions would not do (safetensors 0.8, huggingface_hub 2.4). `safetensors.torch.save_file` refuses
tied weights, so each would have to be copied first. `huggingface_hub.save_torch_state_dict` writes one of the tensors
that share memory and leaves out the others, even where one is a slice of another. Its `load_state_dict_from_file` is
`torch.load` with the arguments used here, without the checks around it.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.checkpoints.repository import BIN as SINGLE
from shared.checkpoints.repository import BIN_INDEX as INDEX
from shared.checkpoints.repository import SMALL
from shared.errors import MemoryRefused, WeightsCorrupt
from shared.machine import free_memory

if TYPE_CHECKING:
    import torch

MOST_COPIES = 8
"""Times its own size that a file's tensors may take: tied weights are stored once and become copies."""
SPARE = 200 * 10**6
"""Bytes of memory left free."""


def to_safetensors(source: Path, target: Path) -> None:
    """Writes `model.safetensors` to `target`, with the configuration and tokenizer of `source` beside it.

    Raises `WeightsCorrupt` for a file that is not plain weights, `MemoryRefused` where it needs more memory than there
    is, `OSError` where `target` cannot hold them.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name in shards(source):
        tensors |= tensors_of(source / name)
    for file in source.iterdir():
        if file.is_file() and SMALL.fullmatch(file.name):
            shutil.copyfile(file, target / file.name)
    _write(tensors, target / "model.safetensors")


def _write(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Writes the tensors without a copy, tied ones under each of their names; transformers ties them again."""
    from safetensors import SafetensorError, TensorSpec, serialize_file

    refuse_without_memory(sum(t.nbytes for t in tensors.values() if not t.is_contiguous()), SINGLE)
    packed = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        specs = {name: TensorSpec(**_spec(tensor)) for name, tensor in packed.items()}
    except SafetensorError as error:
        raise WeightsCorrupt(
            f"{SINGLE} was refused: {_first_line(error)} safetensors has no such numbers. Choose another checkpoint"
        ) from None
    try:
        serialize_file(specs, file, metadata={"format": "pt"})
    except SafetensorError as error:  # so it says that the disk is full
        raise OSError(errno.ENOSPC, _first_line(error)) from error


def _spec(tensor: torch.Tensor) -> dict[str, Any]:
    """The arguments of `TensorSpec` for a contiguous tensor."""
    kind = str(tensor.dtype).removeprefix("torch.")
    return {"dtype": kind, "shape": tensor.shape, "data_ptr": tensor.data_ptr(), "data_len": tensor.nbytes}


def refuse_without_memory(nbytes: int, what: str, done: str = "") -> None:
    """Raises `MemoryRefused` where so many bytes are not free to turn a pickle into safetensors."""
    free = free_memory()
    if nbytes and free < nbytes + SPARE:
        raise MemoryRefused(
            f"{what} is published as a pickle, and turning it into safetensors may take "
            f"{(nbytes + SPARE) / 1e6:,.0f} MB of memory, of which {free / 1e6:,.0f} MB are free. Unload a checkpoint "
            f"or end other programs, and try again, or choose a smaller one{done}",
            field="model",
        )


def tensors_of(pickled: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file by their names. Raises `WeightsCorrupt` where it holds anything else."""
    import torch

    name = pickled.name
    mapped = _is_zip(pickled)
    if not mapped:
        refuse_without_memory(pickled.stat().st_size, name)
    try:
        found: Any = torch.load(pickled, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged or hostile file makes the unpickler stumble over
        # Of torch's message the name alone: the rest is advice to load the file all the same.
        wanted = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        asks = f" and asks for {wanted[1]}" if wanted else ""
        raise WeightsCorrupt(
            f"{name} was refused: it is damaged, or holds more than weights{asks} (a pickle can hold code, so nothing "
            "but tensors is read from it, and nothing in it was run). Choose another checkpoint, or a revision with "
            "safetensors"
        ) from None
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and key != "__metadata__" and _is_plain(value) for key, value in found.items()
    ):
        raise WeightsCorrupt(
            f"{name} was refused: it is not a table of weights by name. Choose another checkpoint, or a revision with "
            "safetensors"
        )
    if sum(value.nbytes for value in found.values()) > MOST_COPIES * pickled.stat().st_size:
        raise WeightsCorrupt(
            f"{name} was refused: its tensors would take many times the memory that the file has bytes. Choose another "
            "checkpoint"
        )
    return found


def _is_plain(value: Any) -> bool:
    import torch

    dense = isinstance(value, torch.Tensor) and value.layout is torch.strided and value.device.type == "cpu"
    return dense and not (value.is_quantized or value.dtype.is_complex or value.is_neg())


def _is_zip(pickled: Path) -> bool:
    """Whether the file has torch's present format. Raises `WeightsCorrupt` for one that is compressed.

    torch stores what it saves; a compressed file may be small and still fill the memory.
    """
    try:
        with zipfile.ZipFile(pickled) as archive:
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # the older format, or damaged
    if not stored:
        raise WeightsCorrupt(
            f"{pickled.name} was refused: it is compressed, as torch never writes weights. Choose another checkpoint"
        )
    return True


def shards(source: Path) -> list[str]:
    """Names of the pickles in a folder. Raises `WeightsCorrupt` where the index names one that is not there."""
    if (source / SINGLE).is_file() or not (source / INDEX).is_file():
        return [SINGLE]
    try:
        names = sorted(set(json.loads((source / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        strange = [name for name in names if Path(name).name != name or not name.endswith(".bin")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsCorrupt(f"{INDEX} is not readable: {_first_line(error)} Tell its owner") from None
    for name in names:
        if name in strange or not (source / name).is_file():
            raise WeightsCorrupt(f"{INDEX} names {name!r}, which is not there. Tell its owner, or choose another")
    return names


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return line if line.endswith((".", "!", "?")) else f"{line}."
