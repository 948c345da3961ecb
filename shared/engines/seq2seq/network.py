"""What the networks of all encoder-decoders have in common: sources are read, and lines written a token at a time.

The tokens of many sources are one matrix, without padding, and so are the newest tokens of many lines. What is computed
stands in `kernels`: all layers in one call or, with an adapter, layer by layer, so that it can add its part. What the
architectures differ in is said by their modules (`t5_network`, `bart_networks`).
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
from shared.engines.kernels.sources import Sources, attend_sources, keep_sources, remember_sources
from shared.engines.packed.matrices import Product, kept_as, matrix_in
from shared.engines.packed.weights import stored


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network is made of; all of it stands in a checkpoint's config."""

    layers: tuple[int, int]
    """Of the encoder, and of the decoder; so are the others."""
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
    """By which states are multiplied before the output matrix."""
    positions: int | None = None
    """Tokens that it can tell the places of; None where that has no end."""
    buckets: int = 0
    """Of relative positions: so many have a bias of their own, up to a distance of `farthest` tokens."""
    farthest: int = 0
    padding: int = 0
    """The padding token."""


SIDES = ("encoder", "decoder")

Published = Mapping[str, Mapping[str, tuple[int, int]]]
"""Of a layer: for each of its products the published matrices, (out, in), that are one here, one below the other."""


@dataclass(eq=False)
class Line:
    """What is written of one source, or one beam of it."""

    source: np.ndarray
    """Keys and values of the source: float32 (decoder layers, 2, heads, source tokens, head size)."""
    memory: np.ndarray
    """Those of what was written, likewise, with room for as many tokens as may come."""
    newest: int
    """The last token, which is not in the memory yet."""
    length: int = 0
    """Tokens that the memory holds."""


class Seq2SeqNetwork(ABC):
    """Encoder, decoder, embeddings and output matrix."""

    model_type: ClassVar[str]
    """As a config names the architecture."""
    prefix: ClassVar[str]
    """What published names of the network proper begin with, where a head is beside it."""
    layer: ClassVar[str]
    """What the published names of a layer begin with, with `{side}` and `{number}`."""
    published_embedding: ClassVar[str]

    @staticmethod
    @abstractmethod
    def shape_of(config: Any) -> Shape | None:
        """The shape by a config of this `model_type`; None where it is not written down here."""

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
        """The published name of the norm after the last layer."""

    @classmethod
    def more_of(cls, state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        """Weights that other architectures do not have, as the network takes them."""
        return {}

    def __init__(self, weights: Mapping[str, Tensor], shape: Shape, longest: int) -> None:
        """`weights` as `stored_of` gives them; they stay where they are.

        `longest` is the most tokens of a source or of what is written for it.
        """
        self.shape = shape
        self.longest = longest if shape.positions is None else min(longest, shape.positions)
        self.matrices: dict[str, dict[str, Affine]] = {
            side: {own: _affine_in(weights, f"{side}.{own}") for own in self.published(shape, side)} for side in SIDES
        }
        self.embedding = affine_of(_affine_in(weights, "embedding"), 0).matrix
        output = affine_of(_affine_in(weights, "output" if "output.integers" in weights else "embedding"), 0)
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
                for number in range(shape.layers[place])
            ]
            for place, side in enumerate(SIDES)
        }
        encoder, decoder = self.matrices.values()
        self.encoder = Encoder(**encoder, **self._beside(weights, 0))
        self.decoder = CrossDecoder(**decoder, **self._beside(weights, 1))
        self.nbytes = sum(tensor.nbytes for tensor in weights.values())
        self.stored_as = kept_as(decoder["down"])

    def _beside(self, weights: Mapping[str, Tensor], place: int) -> dict[str, Any]:
        shape, side = self.shape, SIDES[place]
        heads = shape.heads[place]
        return {
            "inner": shape.inner[place],
            "norms": weights[f"{side}.norms"].numpy(),
            "heads": Heads(shape.layers[place], heads, heads, shape.head_size, shape.scaled, self.near(weights, side)),
            "style": shape.style,
        }

    # -- what the architectures do each in their own way ---------------------------------------------

    @abstractmethod
    def near(self, weights: Mapping[str, Tensor], side: str) -> np.ndarray | None:
        """What distances add to scores, as in `Heads`, if the architecture does so."""

    @abstractmethod
    def place(self, x: np.ndarray, ids: Sequence[np.ndarray], before: Sequence[int]) -> None:
        """Adds to embedded tokens where they stand, if the architecture does.

        `ids` are those of each sequence, of which so many come `before`.
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
        memories = _sources(found)
        if active() is None:
            remember_sources(heads, self.decoder.keys_values, x, memories)
        else:
            for number, layer in enumerate(self.layers["decoder"]):
                keep_sources(heads, number, layer["keys_values"].of(x), memories)
        return found

    def write(self, lines: Sequence[Line]) -> Tensor:
        """Puts the newest token of each line into its memory; the next one's logits, float32 (lines, vocabulary).

        Raises as `read` does.
        """
        x = self._embedded([np.array([line.newest], np.int64) for line in lines], [line.length for line in lines])
        if any(line.length >= line.memory.shape[3] for line in lines):
            raise IndexError("a line is longer than its memory")
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

    def room(self, tokens: int) -> np.ndarray:
        """A memory for so many written tokens. Pages are taken from the system as they are written."""
        heads = self.decoder.heads
        return np.empty((heads.layers, 2, heads.kv, tokens, heads.size), np.float32)

    def _embedded(self, ids: Sequence[np.ndarray], before: Sequence[int]) -> np.ndarray:
        together = np.concatenate(ids)
        if together.max() >= self.shape.vocabulary or together.min() < 0:
            raise IndexError(f"token {together.max()} of {self.shape.vocabulary}")
        longest = max(len(some) + place for some, place in zip(ids, before, strict=True))
        if longest > self.longest:
            raise IndexError(f"{longest} tokens of {self.longest}")
        x = np.empty((len(together), self.shape.width), np.float32)
        embed(together, self.embedding, x)
        x *= np.float32(self.shape.embedding_scale)
        self.place(x, ids, before)
        return x

    def _last_norm(self, side: str, x: np.ndarray) -> None:
        if side in self.last:
            norm(x, self.last[side], self.shape.style, x)

    # -- as in the compiled passes, with matrices that an adapter can change -----------------------------

    def _encoder_layer(self, number: int, x: np.ndarray, lengths: np.ndarray) -> None:
        layer, network, norms = self.layers["encoder"][number], self.encoder, self.encoder.norms[number]
        attended = np.empty((len(x), network.heads.queries * network.heads.size), np.float32)
        attend_texts(network.heads, layer["qkv"].of(self._incoming(x, norms[0])), lengths, attended)
        outgoing(x, layer["attended"].of(attended), norms[0], network.style)
        self._feed(layer, network.inner, x, norms[1])

    def _decoder_layer(self, number: int, x: np.ndarray, sequences: Sequences, sources: Sources) -> None:
        layer, network, norms = self.layers["decoder"][number], self.decoder, self.decoder.norms[number]
        attended = np.empty((len(x), network.heads.queries * network.heads.size), np.float32)
        attend(network.heads, number, layer["qkv"].of(self._incoming(x, norms[0])), sequences, attended)
        outgoing(x, layer["attended"].of(attended), norms[0], network.style)
        queries = layer["queries"].of(self._incoming(x, norms[1]))
        attend_sources(network.heads, number, queries, np.arange(len(x)), sources, attended)
        outgoing(x, layer["crossed"].of(attended), norms[1], network.style)
        self._feed(layer, network.inner, x, norms[2])

    def _feed(self, layer: Mapping[str, Product], inner: int, x: np.ndarray, norms: np.ndarray) -> None:
        activated = np.empty((len(x), inner), np.float32)
        activate(layer["up"].of(self._incoming(x, norms)), self.shape.style, activated)
        outgoing(x, layer["down"].of(activated), norms, self.shape.style)

    def _incoming(self, x: np.ndarray, norms: np.ndarray) -> np.ndarray:
        return incoming(x, norms, self.shape.style, np.empty_like(x))

    # -- weights -------------------------------------------------------------------------------------

    @classmethod
    def stored_of(cls, state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        """A checkpoint's weights, float32 as transformers has them, as the network takes them."""
        embedding, output = state[cls.published_embedding].float(), state["lm_head.weight"].float()
        found = stored("embedding", [embedding])
        # transformers does not tie the two where the file holds both and they differ, whatever the config says.
        if not torch.equal(embedding, output):
            found |= stored("output", [output])
        found |= cls.more_of(state, shape)
        for place, side in enumerate(SIDES):
            layers = list(cls.layers_of(shape, place))
            norms = [torch.stack([_norm(state, f"{at}{name}") for name in cls.norms(side)]) for at in layers]
            found[f"{side}.norms"] = torch.stack(norms)
            if (last := cls.last_norm(side)) is not None:
                found[f"{side}.last"] = _norm(state, last)
            for own, names in cls.published(shape, side).items():
                matrices = [torch.cat([state[f"{at}{name}.weight"].float() for name in names]) for at in layers]
                found |= stored(f"{side}.{own}", matrices)
                if f"{layers[0]}{next(iter(names))}.bias" in state:
                    biases = [torch.cat([state[f"{at}{name}.bias"].float() for name in names]) for at in layers]
                    found[f"{side}.{own}.bias"] = torch.stack(biases)
        return found

    @classmethod
    def layers_of(cls, shape: Shape, place: int) -> Iterator[str]:
        """What the published names in each layer of one side begin with."""
        return (cls.layer.format(side=SIDES[place], number=number) for number in range(shape.layers[place]))


def _affine_in(weights: Mapping[str, Tensor], name: str) -> Affine:
    """The matrices of that name of all layers; where they have no biases, as many as none."""
    found = matrix_in(weights, name)
    if isinstance(found, Affine):
        return found
    return Affine(found, np.zeros((len(found.integers), 0), np.float32))


def _norm(state: Mapping[str, Tensor], name: str) -> Tensor:
    """Factors, and what is added: (2, width)."""
    factors = state[f"{name}.weight"].float()
    more = state.get(f"{name}.bias")
    return torch.stack([factors, torch.zeros_like(factors) if more is None else more.float()])


def _sequences(lines: Sequence[Line]) -> Sequences:
    """One token of each line, which looks at all before it. The arrays of `lines` must outlive it."""
    some = [(line.length, line.memory.ctypes.data, line.memory.shape[3]) for line in lines]
    read, memories, rooms = np.array(some, np.int64).T.copy()
    return Sequences(read, memories, rooms, read, np.ones_like(read), np.zeros_like(read))


def _sources(memories: Sequence[np.ndarray]) -> Sources:
    """They must outlive it."""
    return Sources(
        memories=np.array([memory.ctypes.data for memory in memories], np.int64),
        lengths=np.array([memory.shape[3] for memory in memories], np.int64),
    )
