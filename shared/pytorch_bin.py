"""Weights kept as a Python pickle (`pytorch_model.bin`), read without running anything in it, and kept as safetensors.

A pickle can hold code. `torch.load(weights_only=True)` builds tensors and plain containers and refuses everything else,
so a hostile file ends in an error; no other way to read a pickle is used here.
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

from shared.errors import WeightsCorrupt

INDEX = "pytorch_model.bin.index.json"
SINGLE = "pytorch_model.bin"


def to_safetensors(source: Path, target: Path) -> None:
    """Writes `model.safetensors` to `target`, with all of `source` beside it but the pickles.

    Raises `WeightsCorrupt` for a file that is not plain weights.
    """
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for name in shards(source):
        try:
            loaded = torch.load(source / name, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
            raise WeightsCorrupt(
                f"{name} was refused: it is damaged, or holds more than weights (a pickle can hold code, so nothing "
                f"but tensors is read from it, and nothing in it was run). {_first_line(error)}"
            ) from None
        if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
            raise WeightsCorrupt(f"{name} was refused: it is not a table of weights by name")
        tensors |= loaded
    # Tied weights share memory, which safetensors does not store: each gets its own copy, and transformers ties again.
    kept = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    for file in source.iterdir():
        if file.is_file() and file.suffix != ".bin" and file.name != INDEX:
            shutil.copyfile(file, target / file.name)
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})


def shards(source: Path) -> list[str]:
    """Names of the pickles in a folder. Raises `WeightsCorrupt` where the index names one that is not there."""
    if not (source / INDEX).is_file():
        return [SINGLE]
    try:
        names = sorted(set(json.loads((source / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise WeightsCorrupt(f"{INDEX} is not readable: {_first_line(error)}") from None
    for name in names:
        if Path(name).name != name or not (source / name).is_file():
            raise WeightsCorrupt(f"{INDEX} names {name}, which is not there")
    return names


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
