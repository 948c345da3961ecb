"""The base class of all encoder-decoders' networks: it reads sources, and writes lines a token at a time.

The tokens of many sources are one matrix, without padding, and so are the newest tokens of many lines. The arithmetic
is in `kernels`: all layers in one call or, with an adapter, layer by layer, so that it can add its part. Each
architecture has its own module (`t5`, `bart`). Over 300 lines: reading and writing share the caches' layout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from shared.engines.adapters.deltas import active
from shared.engines.kernels.attention import Heads, Sequences, attend, attend_texts
from shared.engines.kernels.cross_decoder import CrossDecoder, forward_decoder
from shared.engines.kernels.elementwise import Style, activate, incoming, norm, outgoing
from shared.engines.kernels.encoder import Encoder, forward_encoder
from shared.engines.kernels.products import Affine, affine_of, embed
from shared.engines.kernels.sources import Sources, attend_sources, cache_sources, cache_sources_of_layer
from shared.engines.packed.matrices import Product, matrix_in, number_format
from shared.engines.packed.weights import pack


@dataclass(frozen=True, slots=True)
class Shape:
    """A network's dimensions; all of them are in a checkpoint's config."""

    layers: tuple[int, int]
    """Of the encoder and of the decoder, as in the next two fields."""
    heads: tuple[int, int]
    inner: tuple[int, int]
    head_size: int
    width: int
    vocabulary: int
    style: Style
    scaled: bool = True
    """Whether attention's scores are divided by the root of a head's size."""
    embedding_scale: float = 1.0
    output_scale: float = 1.0
    """States are multiplied by it before the output matrix."""
    positions: int | None = None
    """Number of positions; None where it is unlimited."""
    buckets: int = 0
    """Number of T5's buckets of relative positions, which have a bias each."""
    max_distance: int = 0
    """All distances from it on are in the last bucket."""
    padding: int = 0
    """The padding token."""


SIDES = ("encoder", "decoder")

Published = Mapping[str, Mapping[str, tuple[int, int]]]
"""For each of a layer's products: the published matrices, (out, in), stacked in it, one below the other."""


@dataclass(eq=False)
class Line:
    """The output for one source, or one beam of it."""

    source: np.ndarray
    """Keys and values of the source: float32 (decoder layers, 2, heads, source tokens, head size)."""
    cache: np.ndarray
    """Keys and values of the output, likewise, with capacity for as many tokens as may come."""
    newest: int
    """The last token, which is not in the cache yet."""
    length: int = 0
    """Tokens in the cache."""


class Seq2SeqNetwork(ABC):
    """Encoder, decoder, embeddings and output matrix."""

    model_type: ClassVar[str]
    """The architecture's name in a config."""
    prefix: ClassVar[str]
    """Prefix of published names, in checkpoints that have a head beside the network."""
    layer: ClassVar[str]
    """Prefix of a layer's published names, with `{side}` and `{number}`."""
    published_embedding: ClassVar[str]

    @staticmethod
    @abstractmethod
    def shape_of(config: Any) -> Shape | None:
        """The shape for a config of this `model_type`; None for a variant that is not implemented here."""

    @staticmethod
    @abstractmethod
    def published(shape: Shape, side: str) -> Published: ...

    @staticmethod
    @abstractmethod
    def norms(side: str) -> Sequence[str]:
        """Published names of a layer's norms, in the order of its parts."""

    @staticmethod
    @abstractmethod
    def last_norm(side: str) -> str | None:
        """The published name of the norm after the last layer, if there is one."""

    @classmethod
    def pack_more(cls, state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        """Weights that only this architecture has, in the network's layout."""
        return {}

    def __init__(self, weights: Mapping[str, Tensor], shape: Shape, longest: int) -> None:
        """`weights` as `pack` gives them; they are not copied.

        `longest` is the most tokens of a source or of its output.
        """
        self.shape = shape
        self.longest = longest if shape.positions is None else min(longest, shape.positions)
        self.matrices: dict[str, dict[str, Affine]] = {
            side: {own: _affine_in(weights, f"{side}.{own}") for own in self.published(shape, side)} for side in SIDES
        }
        self.embedding = affine_of(_affine_in(weights, "embedding"), 0).matrix
        output = affine_of(_affine_in(weights, "output" if "output.quants" in weights else "embedding"), 0)
        if "output_bias" in weights:
            output = Affine(output.matrix, weights["output_bias"].numpy())
        self.output = Product(output, shape.vocabulary)
        self.last = {side: weights[f"{side}.last"].numpy() for side in SIDES if f"{side}.last" in weights}
        self.layers = {
            side: [
                {
                    own: Product(affine_of(self.matrices[side][own], number), sum(out for out, _ in names.values()))
                    for own, names in self.published(shape, side).items()
                }
                for number in range(shape.layers[side_index])
            ]
            for side_index, side in enumerate(SIDES)
        }
        encoder, decoder = self.matrices.values()
        self.encoder = Encoder(**encoder, **self._common(weights, 0))
        self.decoder = CrossDecoder(**decoder, **self._common(weights, 1))
        self.nbytes = sum(tensor.nbytes for tensor in weights.values())
        self.number_format = number_format(decoder["down"])

    def _common(self, weights: Mapping[str, Tensor], side_index: int) -> dict[str, Any]:
        shape, side = self.shape, SIDES[side_index]
        heads, bias = shape.heads[side_index], self.relative_bias(weights, side)
        return {
            "inner": shape.inner[side_index],
            "norms": weights[f"{side}.norms"].numpy(),
            "heads": Heads(shape.layers[side_index], heads, heads, shape.head_size, shape.scaled, bias),
            "style": shape.style,
        }

    # -- what differs between architectures ------------------------------------------------------------

    @abstractmethod
    def relative_bias(self, weights: Mapping[str, Tensor], side: str) -> np.ndarray | None:
        """`Heads.relative_bias`, if the architecture has one."""

    @abstractmethod
    def add_positions(self, x: np.ndarray, ids: Sequence[np.ndarray], before: Sequence[int]) -> None:
        """Adds positions to embedded tokens, if the architecture has them.

        `ids` are the new tokens of each sequence, and `before` is how many tokens come before them.
        """

    # -- a step ------------------------------------------------------------------------------------

    def read(self, sources: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Keys and values of each source, as a `Line` takes them.

        Raises `IndexError` for tokens or positions that the network does not have: compiled code would not notice.
        """
        if not sources:
            return []
        x = self._embedded([np.array(source, np.int64) for source in sources], [0] * len(sources))
        lengths = np.array([len(source) for source in sources], np.int64)
        if active() is None:
            forward_encoder(self.encoder, x, lengths)
        else:
            for number in range(self.shape.layers[0]):
                self._encoder_layer(number, x, lengths)
        self._last_norm("encoder", x)
        heads = self.decoder.heads
        found = [np.empty((heads.layers, 2, heads.kv, len(s), heads.size), np.float32) for s in sources]
        caches = _sources(found)
        if active() is None:
            cache_sources(heads, self.decoder.keys_values, x, caches)
        else:
            for number, layer in enumerate(self.layers["decoder"]):
                cache_sources_of_layer(heads, number, layer["keys_values"].of(x), caches)
        return found

    def write(self, lines: Sequence[Line]) -> Tensor:
        """Appends the newest token of each line to its cache; the next one's logits, float32 (lines, vocabulary).

        Raises as `read` does.
        """
        x = self._embedded([np.array([line.newest], np.int64) for line in lines], [line.length for line in lines])
        if any(line.length >= line.cache.shape[3] for line in lines):
            raise IndexError("a line is longer than its cache")
        sequences, sources = _sequences(lines), _sources([line.source for line in lines])
        if active() is None:
            forward_decoder(self.decoder, x, sequences, sources)
        else:
            for number in range(self.shape.layers[1]):
                self._decoder_layer(number, x, sequences, sources)
        self._last_norm("decoder", x)
        x *= np.float32(self.shape.output_scale)
        for line in lines:
            line.length += 1
        return self.output(torch.from_numpy(x))

    def new_cache(self, capacity: int) -> np.ndarray:
        """An empty cache for so many tokens. The system provides memory pages only as they are written."""
        heads = self.decoder.heads
        return np.empty((heads.layers, 2, heads.kv, capacity, heads.size), np.float32)

    def _embedded(self, ids: Sequence[np.ndarray], before: Sequence[int]) -> np.ndarray:
        together = np.concatenate(ids)
        if together.max() >= self.shape.vocabulary or together.min() < 0:
            raise IndexError(f"token {together.max()} of {self.shape.vocabulary}")
        longest = max(len(some) + start for some, start in zip(ids, before, strict=True))
        if longest > self.longest:
            raise IndexError(f"{longest} tokens of {self.longest}")
        x = np.empty((len(together), self.shape.width), np.float32)
        embed(together, self.embedding, x)
        x *= np.float32(self.shape.embedding_scale)
        self.add_positions(x, ids, before)
        return x

    def _last_norm(self, side: str, x: np.ndarray) -> None:
        if side in self.last:
            norm(x, self.last[side], self.shape.style, x)

    # -- one layer of the compiled passes, with products that an adapter can change ------------------------

    def _encoder_layer(self, number: int, x: np.ndarray, lengths: np.ndarray) -> None:
        layer, network, norms = self.layers["encoder"][number], self.encoder, self.encoder.norms[number]
        attended = np.empty((len(x), network.heads.queries * network.heads.size), np.float32)
        attend_texts(network.heads, layer["qkv"].of(self._incoming(x, norms[0])), lengths, attended)
        outgoing(x, layer["attention_output"].of(attended), norms[0], network.style)
        self._feed(layer, network.inner, x, norms[1])

    def _decoder_layer(self, number: int, x: np.ndarray, sequences: Sequences, sources: Sources) -> None:
        layer, network, norms = self.layers["decoder"][number], self.decoder, self.decoder.norms[number]
        attended = np.empty((len(x), network.heads.queries * network.heads.size), np.float32)
        attend(network.heads, number, layer["qkv"].of(self._incoming(x, norms[0])), sequences, attended)
        outgoing(x, layer["attention_output"].of(attended), norms[0], network.style)
        queries = layer["queries"].of(self._incoming(x, norms[1]))
        attend_sources(network.heads, number, queries, np.arange(len(x)), sources, attended)
        outgoing(x, layer["cross_attention_output"].of(attended), norms[1], network.style)
        self._feed(layer, network.inner, x, norms[2])

    def _feed(self, layer: Mapping[str, Product], inner: int, x: np.ndarray, norms: np.ndarray) -> None:
        activated = np.empty((len(x), inner), np.float32)
        activate(layer["up"].of(self._incoming(x, norms)), self.shape.style, activated)
        outgoing(x, layer["down"].of(activated), norms, self.shape.style)

    def _incoming(self, x: np.ndarray, norms: np.ndarray) -> np.ndarray:
        return incoming(x, norms, self.shape.style, np.empty_like(x))

    # -- weights -------------------------------------------------------------------------------------

    @classmethod
    def pack(cls, state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        """A checkpoint's weights, float32 under transformers' names, in this network's layout."""
        embedding, output = state[cls.published_embedding].float(), state["lm_head.weight"].float()
        found = pack("embedding", [embedding])
        # transformers does not tie the two if the file has both and they differ, whatever the config says.
        if not torch.equal(embedding, output):
            found |= pack("output", [output])
        found |= cls.pack_more(state, shape)
        for side_index, side in enumerate(SIDES):
            layers = list(cls.layers_of(shape, side_index))
            norms = [torch.stack([_norm(state, f"{at}{name}") for name in cls.norms(side)]) for at in layers]
            found[f"{side}.norms"] = torch.stack(norms)
            if (last := cls.last_norm(side)) is not None:
                found[f"{side}.last"] = _norm(state, last)
            for own, names in cls.published(shape, side).items():
                matrices = [torch.cat([state[f"{at}{name}.weight"].float() for name in names]) for at in layers]
                found |= pack(f"{side}.{own}", matrices)
                if f"{layers[0]}{next(iter(names))}.bias" in state:
                    biases = [torch.cat([state[f"{at}{name}.bias"].float() for name in names]) for at in layers]
                    found[f"{side}.{own}.bias"] = torch.stack(biases)
        return found

    @classmethod
    def layers_of(cls, shape: Shape, side_index: int) -> Iterator[str]:
        """Prefix of the published names in each layer of one side."""
        return (cls.layer.format(side=SIDES[side_index], number=number) for number in range(shape.layers[side_index]))


def _affine_in(weights: Mapping[str, Tensor], name: str) -> Affine:
    """The matrices of that name for all layers; where they have no biases, with biases of length 0."""
    found = matrix_in(weights, name)
    if isinstance(found, Affine):
        return found
    return Affine(found, np.zeros((len(found.quants), 0), np.float32))


def _norm(state: Mapping[str, Tensor], name: str) -> Tensor:
    """Weight and bias of a norm: (2, width)."""
    factors = state[f"{name}.weight"].float()
    more = state.get(f"{name}.bias")
    return torch.stack([factors, torch.zeros_like(factors) if more is None else more.float()])


def _sequences(lines: Sequence[Line]) -> Sequences:
    """One token of each line, which looks at all before it. It has addresses only: `lines` must outlive it."""
    some = [(line.length, line.cache.ctypes.data, line.cache.shape[3]) for line in lines]
    cached, caches, capacities = np.array(some, np.int64).T.copy()
    return Sequences(cached, caches, capacities, cached, np.ones_like(cached), np.zeros_like(cached))


def _sources(caches: Sequence[np.ndarray]) -> Sources:
    """It has addresses only: `caches` must outlive it."""
    return Sources(
        caches=np.array([cache.ctypes.data for cache in caches], np.int64),
        lengths=np.array([cache.shape[3] for cache in caches], np.int64),
    )
