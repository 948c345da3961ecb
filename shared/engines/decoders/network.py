"""The base class of all decoders' networks: one step, its products, and where an adapter changes them.

The tokens of many sequences are one matrix, without padding; only attention looks at each sequence by itself. The
arithmetic is in `kernels`: all layers in one call or, with an adapter, layer by layer, so that it can add its part.
Each architecture has its own module (`llama`, `gpt2`).
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
from shared.engines.packed.matrices import Product, matrix_in, number_format
from shared.engines.packed.weights import pack
from shared.errors import WeightsCorrupt


@dataclass(frozen=True, slots=True)
class Shape:
    """A network's dimensions; all of them are in a checkpoint's config."""

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
    """Base of the rotary positions; None where positions are learned."""

    @property
    def cache_floats(self) -> int:
        """Numbers that one token takes in the key-value cache."""
        return self.layers * 2 * self.kv_heads * self.head_size


Published = Mapping[str, Mapping[str, tuple[int, int]]]
"""For each of a layer's four products, in order: the published matrices, (out, in), stacked in it.

They have the same input, and are one below the other.
"""


class DecoderNetwork(ABC):
    """Reads tokens of several sequences, each with its own key-value cache."""

    model_type: ClassVar[str]
    """The architecture's name in a config."""
    prefix: ClassVar[str]
    """Prefix of published names, in checkpoints that have a head beside the network."""
    layer: ClassVar[str]
    """Prefix of a layer's published names, with `{}` for its number."""

    @staticmethod
    @abstractmethod
    def shape_of(config: Any) -> Shape | None:
        """The shape for a config of this `model_type`; None for a variant that is not implemented here."""

    @staticmethod
    @abstractmethod
    def published(shape: Shape) -> Published: ...

    @classmethod
    @abstractmethod
    def pack(cls, state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        """A checkpoint's weights, float32 under transformers' names, in this network's layout."""

    def __init__(self, weights: Mapping[str, Tensor], shape: Shape) -> None:
        """`weights` as `pack` gives them; they are not copied."""
        self.shape = shape
        self.heads = Heads(shape.layers, shape.heads, shape.kv_heads, shape.head_size)
        self.norms, self.norm = weights["norms"].numpy(), weights["norm"].numpy()
        self.matrices: dict[str, Any] = {own: matrix_in(weights, own) for own in self.published(shape)}
        self.input = self.output = layer_of(matrix_in(weights, "embedding"), 0)
        if "output.quants" in weights:
            self.output = layer_of(matrix_in(weights, "output"), 0)
        self.layers = [
            {own: self._product(own, number, names) for own, names in self.published(shape).items()}
            for number in range(shape.layers)
        ]
        self.nbytes = sum(tensor.nbytes for tensor in weights.values())
        self.number_format = number_format([*self.matrices.values()][-1])

    def _product(self, own: str, number: int, names: Mapping[str, tuple[int, int]]) -> Product:
        matrix, out = self.matrices[own], sum(out for out, _ in names.values())
        some = affine_of(matrix, number) if isinstance(matrix, Affine) else layer_of(matrix, number)
        return Product(some, out)

    # -- a step ------------------------------------------------------------------------------------

    def states(self, ids: np.ndarray, sequences: Sequences, logit_positions: np.ndarray) -> np.ndarray:
        """The normed states after the last layer of the tokens at `logit_positions`: float32 (logit_positions, width).

        `ids`, int64 (tokens,): the new tokens of all sequences one after the other; their keys and values are appended
        to the caches. Raises `IndexError` for tokens or positions that the network does not have, which compiled code
        would not notice, and `WeightsCorrupt` for states that are not finite.
        """
        if ids.max(initial=0) >= self.shape.vocabulary or ids.min(initial=0) < 0:
            raise IndexError(f"token {ids.max()} of {self.shape.vocabulary}")
        if sequences.positions.max(initial=0) >= self.shape.positions:
            raise IndexError(f"position {sequences.positions.max()} of {self.shape.positions}")
        x = np.empty((len(ids), self.shape.width), np.float32)
        embed(ids, self.input, x)
        self.add_positions(x, sequences.positions)
        if active() is None:
            self.forward(x, sequences)
        else:
            for number in range(self.shape.layers):
                self._one_layer(number, x, sequences)
        x = x[logit_positions]
        self.normalize(x, self.norm, x)
        if not np.isfinite(x).all():
            raise WeightsCorrupt(
                "the model computes no numbers: its weights, or its adapter's, are damaged or too large", field="model"
            )
        return x

    def logits(self, states: np.ndarray) -> np.ndarray:
        """float32 (rows, vocabulary)."""
        out = np.empty((len(states), len(self.output.quants) * LANES), np.float32)
        product(states, self.output, out)
        return out[:, : self.shape.vocabulary]

    def _one_layer(self, number: int, x: np.ndarray, sequences: Sequences) -> None:
        """One layer of `forward`, with products that an adapter can change."""
        to_qkv, to_attention_output, to_inner, to_down = self.layers[number].values()
        inputs, norms = np.empty_like(x), self.norms[number]
        self.normalize(x, norms[0], inputs)
        qkv = to_qkv.of(inputs)
        self.rotate(qkv, sequences.positions)
        attended = np.empty((len(x), self.shape.heads * self.shape.head_size), np.float32)
        attend(self.heads, number, qkv, sequences, attended)
        add(x, to_attention_output.of(attended))
        self.normalize(x, norms[1], inputs)
        activated = np.empty((len(x), self.shape.inner), np.float32)
        self.activate(to_inner.of(inputs), activated)
        add(x, to_down.of(activated))

    # -- what differs between architectures; each works in place, or writes into `out` -----------------------

    @abstractmethod
    def forward(self, x: np.ndarray, sequences: Sequences) -> None:
        """All layers in one call: float32 (tokens, width)."""

    @abstractmethod
    def add_positions(self, x: np.ndarray, positions: np.ndarray) -> None:
        """Adds learned positions to embedded tokens, if the architecture has them."""

    @abstractmethod
    def rotate(self, qkv: np.ndarray, positions: np.ndarray) -> None:
        """Rotates queries and keys by their positions, if the architecture does."""

    @abstractmethod
    def normalize(self, x: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None: ...

    @abstractmethod
    def activate(self, x: np.ndarray, out: np.ndarray) -> None: ...


# -- weights ---------------------------------------------------------------------------------------


def pack_embeddings(state: Mapping[str, Tensor], embedding: str) -> dict[str, Tensor]:
    """The input embeddings, and the output matrix if it differs from them."""
    found = pack("embedding", [state[embedding].float()])
    # transformers does not tie the two if the file has both and they differ, whatever the config says.
    output = state.get("lm_head.weight")
    if output is not None and not torch.equal(output, state[embedding]):
        found |= pack("output", [output.float()])
    return found


# -- sequences -------------------------------------------------------------------------------------


def sequences_of(
    positions: Sequence[int],
    caches: Sequence[Tensor],
    cached: Sequence[int],
    new: Sequence[int],
    masks: Sequence[Tensor | None],
) -> Sequences:
    """The input of one step. `Sequences` has addresses only, so the tensors must outlive it."""
    return Sequences(
        positions=np.array(positions, np.int64),
        caches=np.array([cache.data_ptr() for cache in caches], np.int64),
        capacities=np.array([cache.shape[3] for cache in caches], np.int64),
        cached=np.array(cached, np.int64),
        new=np.array(new, np.int64),
        masks=np.array([0 if mask is None else mask.data_ptr() for mask in masks], np.int64),
    )
