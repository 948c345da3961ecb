"""What the networks of all decoders have in common: their step, their products, and what an adapter changes.

The tokens of many sequences are one matrix, without padding; only attention looks at each sequence by itself. What is
computed stands in `kernels`: all layers in one call or, with an adapter, layer by layer, so that it can add its
part. Each architecture has a module of its own (`llama_network`, `gpt2_network`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from shared.engines.adapters.deltas import active
from shared.engines.kernels.attention import Heads, Sequences, attend
from shared.engines.kernels.elementwise import add
from shared.engines.kernels.products import LANES, Affine, affine_of, embed, layer_of, product
from shared.engines.packed.matrices import Product, kept_as, matrix_in
from shared.engines.packed.weights import stored
from shared.errors import WeightsCorrupt


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network is made of; all of it stands in a checkpoint's config."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    width: int
    inner: int
    vocabulary: int
    epsilon: float
    positions: int
    theta: float | None = None
    """Of rotary positions; None where positions are learned."""

    @property
    def memory_floats(self) -> int:
        """Numbers that one token leaves in the key-value memory."""
        return self.layers * 2 * self.kv_heads * self.head_size


Published = Mapping[str, Mapping[str, tuple[int, int]]]
"""Of a layer: for each of its four products, in their order, the published matrices, (out, in), that are one here.

They read the same input, and lie one below the other.
"""


class DecoderNetwork(ABC):
    """Reads tokens of several sequences, each with a memory of its own."""

    model_type: ClassVar[str]
    """As a config names the architecture."""
    prefix: ClassVar[str]
    """What published names begin with, where a head is beside the network."""
    layer: ClassVar[str]
    """What the published names of a layer begin with, with `{}` for its number."""

    @staticmethod
    @abstractmethod
    def shape_of(config: Any) -> Shape | None:
        """The shape by a config of this `model_type`; None where it is not written down here."""

    @staticmethod
    @abstractmethod
    def published(shape: Shape) -> Published: ...

    @classmethod
    @abstractmethod
    def stored(cls, state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        """A checkpoint's weights, float32 as transformers has them, as the network takes them."""

    def __init__(self, weights: Mapping[str, Tensor], shape: Shape) -> None:
        """`weights` as `stored` gives them; they stay where they are."""
        self.shape = shape
        self.heads = Heads(shape.layers, shape.heads, shape.kv_heads, shape.head_size)
        self.norms, self.norm = weights["norms"].numpy(), weights["norm"].numpy()
        self.matrices: dict[str, Any] = {own: matrix_in(weights, own) for own in self.published(shape)}
        self.input = self.output = layer_of(matrix_in(weights, "embedding"), 0)
        if "output.integers" in weights:
            self.output = layer_of(matrix_in(weights, "output"), 0)
        self.layers = [
            {own: self._product(own, number, names) for own, names in self.published(shape).items()}
            for number in range(shape.layers)
        ]
        self.nbytes = sum(tensor.nbytes for tensor in weights.values())
        self.stored_as = kept_as([*self.matrices.values()][-1])

    def _product(self, own: str, number: int, names: Mapping[str, tuple[int, int]]) -> Product:
        matrix, out = self.matrices[own], sum(out for out, _ in names.values())
        some = affine_of(matrix, number) if isinstance(matrix, Affine) else layer_of(matrix, number)
        return Product(some, out)

    # -- a step ------------------------------------------------------------------------------------

    def states(self, ids: np.ndarray, sequences: Sequences, kept: np.ndarray) -> np.ndarray:
        """The normed states of the `kept` tokens after the last layer: float32 (kept, width).

        `ids`, int64 (tokens,): the new tokens of all sequences one after the other, which are written into their
        memories. Raises `IndexError` for tokens or positions that the network does not have: compiled code would not
        notice. Raises `WeightsCorrupt` where the states are no numbers.
        """
        if ids.max(initial=0) >= self.shape.vocabulary or ids.min(initial=0) < 0:
            raise IndexError(f"token {ids.max()} of {self.shape.vocabulary}")
        if sequences.positions.max(initial=0) >= self.shape.positions:
            raise IndexError(f"position {sequences.positions.max()} of {self.shape.positions}")
        x = np.empty((len(ids), self.shape.width), np.float32)
        embed(ids, self.input, x)
        self.place(x, sequences.positions)
        if active() is None:
            self.forward(x, sequences)
        else:
            for number in range(self.shape.layers):
                self._one_layer(number, x, sequences)
        x = x[kept]
        self.normed(x, self.norm, x)
        if not np.isfinite(x).all():
            raise WeightsCorrupt(
                "the model computes no numbers: its weights, or its adapter's, are damaged or too large", field="model"
            )
        return x

    def logits(self, states: np.ndarray) -> np.ndarray:
        """float32 (rows, vocabulary)."""
        out = np.empty((len(states), len(self.output.integers) * LANES), np.float32)
        product(states, self.output, out)
        return out[:, : self.shape.vocabulary]

    def _one_layer(self, number: int, x: np.ndarray, sequences: Sequences) -> None:
        """As in `forward`, with matrices that an adapter can change."""
        to_qkv, to_attended, to_inner, to_down = self.layers[number].values()
        inputs, norms = np.empty_like(x), self.norms[number]
        self.normed(x, norms[0], inputs)
        qkv = to_qkv.of(inputs)
        self.turn(qkv, sequences.positions)
        attended = np.empty((len(x), self.shape.heads * self.shape.head_size), np.float32)
        attend(self.heads, number, qkv, sequences, attended)
        add(x, to_attended.of(attended))
        self.normed(x, norms[1], inputs)
        activated = np.empty((len(x), self.shape.inner), np.float32)
        self.activate(to_inner.of(inputs), activated)
        add(x, to_down.of(activated))

    # -- what the architectures do each in their own way; in place, or into `out` --------------------------

    @abstractmethod
    def forward(self, x: np.ndarray, sequences: Sequences) -> None:
        """All layers in one call: float32 (tokens, width)."""

    @abstractmethod
    def place(self, x: np.ndarray, positions: np.ndarray) -> None:
        """Adds to embedded tokens where they stand, if the architecture does."""

    @abstractmethod
    def turn(self, qkv: np.ndarray, positions: np.ndarray) -> None:
        """Turns queries and keys by their positions, if the architecture does."""

    @abstractmethod
    def normed(self, x: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None: ...

    @abstractmethod
    def activate(self, x: np.ndarray, out: np.ndarray) -> None: ...


# -- weights ---------------------------------------------------------------------------------------


def stored_ends(state: Mapping[str, Tensor], embedding: str) -> dict[str, Tensor]:
    """The input embeddings, and the output matrix where it is another one."""
    found = stored("embedding", [state[embedding].float()])
    # transformers does not tie the two where the file holds both and they differ, whatever the config says.
    output = state.get("lm_head.weight")
    if output is not None and not torch.equal(output, state[embedding]):
        found |= stored("output", [output.float()])
    return found


# -- sequences -------------------------------------------------------------------------------------


def sequences_of(
    positions: Sequence[int],
    memories: Sequence[Tensor],
    read: Sequence[int],
    new: Sequence[int],
    seen: Sequence[Tensor | None],
) -> Sequences:
    """What is computed in one step, for each sequence: see `Sequences`. The tensors must outlive it."""
    return Sequences(
        positions=np.array(positions, np.int64),
        memories=np.array([memory.data_ptr() for memory in memories], np.int64),
        rooms=np.array([memory.shape[3] for memory in memories], np.int64),
        read=np.array(read, np.int64),
        new=np.array(new, np.int64),
        seen=np.array([0 if mask is None else mask.data_ptr() for mask in seen], np.int64),
    )
