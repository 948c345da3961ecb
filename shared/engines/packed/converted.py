"""Checkpoints of transformers in the layout of the kernels: converted once, kept in the cache folder, read from there.

A family of models gives its networks, classes with `model_type`, `shape_of(config)` and `pack(state, shape)`, and what
writes a converted folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from shared.checkpoints.catalog import Checkpoint
from shared.checkpoints.conversion import converted
from shared.checkpoints.repository import SAFETENSORS
from shared.events import Progress
from shared.settings import Settings

N = TypeVar("N")

GENERATION = "generation_config.json"

Convert = Callable[[Checkpoint, Path, Path, Progress], None]
"""`convert(checkpoint, source, target, progress)` writes `target` from a verified folder of transformers."""


def with_padding(nbytes: int) -> int:
    """Bytes of weights in this layout, at most, from those in transformers' own.

    Scales, mins and the padding of the last block add about 1 % to a matrix with 500 inputs.
    """
    return nbytes * 101 // 100


def architecture_in(networks: Sequence[type[N]], config: Any) -> tuple[type[N], Any] | None:
    """The network that computes a checkpoint with this config, and its shape; None where none does."""
    for network in networks:
        known: Any = network
        if known.model_type == config.model_type and (shape := known.shape_of(config)) is not None:
            return network, shape
    return None


def converted_folder(
    checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress, convert: Convert
) -> Path:
    """The folder in the layout of the kernels, made where there is none. Raises as `converted` does."""
    from shared.engines.packed.weights import FORMAT

    def in_blocks(source: Path, target: Path) -> None:
        convert(checkpoint, source, target, progress)

    return converted(checkpoint, folder, settings, in_blocks, progress, form="kernels", number=FORMAT)


def read_network(architecture: tuple[type[N], Any] | None, folder: Path, *arguments: Any) -> N:
    """The network with the weights of a converted folder; `arguments` follow weights and shape."""
    from shared.engines.packed.large_pages import read_file

    assert architecture is not None, "converted for this network"
    network, shape = architecture
    make: Any = network
    return make(read_file(folder / SAFETENSORS), shape, *arguments)
