"""Random weights that are the same each time, and other forms that the same weights are published in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def seeded(model: Any, seed: int, std: float = 0.4) -> Any:
    """The model with all its parameters drawn anew: matrices with `std`, scales about 1, biases about 0."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=draw)
            is_scale = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_scale else noise * (std if parameter.dim() > 1 else 0.1))
    return model.eval()


def renamed(folder: Path, changes: Mapping[str, str]) -> Path:
    """The same weights under other names: each pattern replaced, and those dropped of whose name nothing is left."""
    weights = {}
    for name, value in load_file(folder / SINGLE).items():
        for pattern, replacement in changes.items():
            name = re.sub(pattern, replacement, name)
        if name:
            weights[name] = value
    save_file(weights, folder / SINGLE, metadata={"format": "pt"})
    return folder


def as_pytorch_bin(folder: Path) -> Path:
    """The same folder with its weights in `pytorch_model.bin`, a pickle, instead of safetensors."""
    torch.save(load_file(folder / SINGLE), folder / "pytorch_model.bin")
    (folder / SINGLE).unlink()
    return folder


def sharded(folder: Path, shards: int = 3) -> Path:
    """The same folder with its weights in several files and an index."""
    weights = load_file(folder / SINGLE)
    names = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
    places = {key: names[i % shards] for i, key in enumerate(sorted(weights))}
    for name in names:
        part = {key: value for key, value in weights.items() if places[key] == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    total = sum(value.numel() * value.element_size() for value in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    (folder / SINGLE).unlink()
    return folder
