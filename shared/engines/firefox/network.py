"""The forward passes of Marian's "tiny" student models, in PyTorch.

A post-norm Transformer encoder (Vaswani et al. 2017) and a decoder whose self-attention is replaced by a
simpler simple recurrent unit, SSRU (Kim et al. 2019, "From Research to Production and Back: Ludicrously Fast
Neural Machine Translation"), so that a decoder step costs the same at every position and needs no growing cache.

Notation of shapes: B sentences, S source tokens, W beams of a sentence (1 when greedy), lines = B * W,
D model dimensions, H heads, V vocabulary. Over 300 lines: the whole network, to be read beside Marian's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from shared.engines.firefox.file import EMBEDDINGS, MarianFile
from shared.engines.packed.positions import sinusoids
from shared.errors import WeightsCorrupt

LAYER_NORM_EPSILON = 1e-6
"""As in Marian's `transformer.h`."""
ARCHITECTURE = {
    "type": "transformer",
    "dec-cell": "ssru",
    "transformer-decoder-autoreg": "rnn",
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": 2,
    "dec-cell-base-depth": 2,
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "transformer-postprocess-top": "",
    "transformer-train-position-embeddings": False,
    "transformer-no-projection": False,
    "tied-embeddings-all": True,
}
"""The one architecture that is implemented, in Marian's option names; a file with other values is refused."""


@dataclass(slots=True)
class DecoderState:
    """Where the decoding of a batch stands."""

    keys: list[Tensor]
    """Of the source, one tensor per decoder layer: (B, H, S, D / H)."""
    values: list[Tensor]
    padding: Tensor
    """0 at source tokens, minus infinity at padding: (B, 1, 1, S)."""
    cells: list[Tensor]
    """SSRU states, one per decoder layer: (B * W, D)."""
    beams: int
    """Beams of a sentence from the second token on; there is one before."""
    width: int = 1
    """Beams of a sentence now."""
    position: int = 0
    """Target tokens so far."""

    def follow(self, origin: Tensor) -> None:
        """Line `i` now continues what line `origin[i]` was; lines that are not named are dropped."""
        sentences = origin[:: self.beams] // self.width
        self.width = self.beams
        self.cells = [cell[origin] for cell in self.cells]
        if len(sentences) < len(self.padding):
            self.keys = [keys[sentences] for keys in self.keys]
            self.values = [values[sentences] for values in self.values]
            self.padding = self.padding[sentences]


class Network:
    """The forward passes. Dimensions, layers and heads are the file's."""

    def __init__(self, file: MarianFile, longest: int, unknown: int) -> None:
        """`longest` is the most tokens of a source or target, `unknown` the id that is never written."""
        weights = Weights(file)
        self.heads = weights.option("transformer-heads")
        self.encoder = [
            EncoderLayer(
                queries_keys_values=weights.linear(f"encoder_l{n}_self_W", f"encoder_l{n}_self_b", "qkv"),
                attention_output=weights.linear(f"encoder_l{n}_self_W", f"encoder_l{n}_self_b", "o"),
                attention_norm=weights.norm(f"encoder_l{n}_self_Wo"),
                feed_forward=weights.feed_forward(f"encoder_l{n}_ffn"),
            )
            for n in range(1, weights.option("enc-depth") + 1)
        ]
        self.decoder = [
            DecoderLayer(
                candidate_forget=weights.ssru(f"decoder_l{n}_rnn"),
                cell_norm=weights.norm(f"decoder_l{n}_rnn_ffn"),
                queries=weights.linear(f"decoder_l{n}_context_W", f"decoder_l{n}_context_b", "q"),
                keys_values=weights.linear(f"decoder_l{n}_context_W", f"decoder_l{n}_context_b", "kv"),
                attention_output=weights.linear(f"decoder_l{n}_context_W", f"decoder_l{n}_context_b", "o"),
                attention_norm=weights.norm(f"decoder_l{n}_context_Wo"),
                feed_forward=weights.feed_forward(f"decoder_l{n}_ffn"),
            )
            for n in range(1, weights.option("dec-depth") + 1)
        ]
        self.embeddings = weights.embeddings(unknown)
        self.positions = weights.keep(sinusoids(longest, weights.dimensions))
        self.nbytes = weights.nbytes

    @torch.inference_mode()
    def encode(self, sources: Sequence[Sequence[int]], beams: int) -> DecoderState:
        """Reads the sources (token ids, end token included) and gets ready to decode."""
        lengths = torch.tensor([len(source) for source in sources])
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(source) for source in sources], batch_first=True)
        is_padding = torch.arange(ids.shape[1]) >= lengths[:, None]
        padding = torch.zeros(ids.shape).masked_fill_(is_padding, -math.inf)[:, None, None, :]
        x = self.embeddings.look_up(ids) + self.positions[: ids.shape[1]]
        for layer in self.encoder:
            queries, keys, values = self._split_heads(layer.queries_keys_values(x), 3)
            attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=padding)
            x = layer.attention_norm(x + layer.attention_output(attended.transpose(1, 2).flatten(2)))
            x = layer.feed_forward(x)
        keys_values = [self._split_heads(layer.keys_values(x), 2) for layer in self.decoder]
        return DecoderState(
            keys=[keys.contiguous() for keys, _ in keys_values],
            values=[values.contiguous() for _, values in keys_values],
            padding=padding,
            cells=[torch.zeros(len(sources), x.shape[-1]) for _ in self.decoder],
            beams=beams,
        )

    @torch.inference_mode()
    def step(self, state: DecoderState, tokens: Tensor | None, origin: Tensor | None) -> Tensor:
        """Feeds one token per line (none at the start) and gives the log-probabilities of the next: (lines, V).

        `origin` is `beam.Advance`'s: which line of the step before each line continues; None keeps them as they are.
        """
        if origin is not None:
            state.follow(origin)
        x = self.positions[state.position]
        x = x.expand_as(state.cells[0]) if tokens is None else x + self.embeddings.look_up(tokens)
        for n, layer in enumerate(self.decoder):
            candidate, forget = layer.candidate_forget(x).chunk(2, dim=-1)
            # f * c + (1 - f) * candidate
            state.cells[n] = torch.lerp(candidate, state.cells[n], torch.sigmoid(forget))
            x = layer.cell_norm(x + torch.relu(state.cells[n]))
            # The beams of a sentence are so many queries to one source, whose keys are there once
            (queries,) = self._split_heads(layer.queries(x).view(-1, state.width, x.shape[-1]), 1)
            attended = F.scaled_dot_product_attention(queries, state.keys[n], state.values[n], attn_mask=state.padding)
            x = layer.attention_norm(x + layer.attention_output(attended.transpose(1, 2).reshape(x.shape)))
            x = layer.feed_forward(x)
        state.position += 1
        return self.embeddings.logits(x).log_softmax(-1)

    @torch.inference_mode()
    def best(self, state: DecoderState, tokens: Tensor | None, origin: Tensor | None) -> tuple[Tensor, Tensor]:
        """A step of greedy decoding: the likeliest next token's log-probability and id, (lines,) each."""
        log_probability, token = self.step(state, tokens, origin).max(-1)
        return log_probability, token

    def _split_heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, n, parts * D) becomes `parts` tensors of shape (B, H, n, D / H)."""
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


@dataclass(frozen=True, slots=True)
class Linear:
    weight: Tensor
    """(out, in), as `F.linear` wants it."""
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class Norm:
    scale: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.scale.shape, self.scale, self.bias, LAYER_NORM_EPSILON)


@dataclass(frozen=True, slots=True)
class FeedForward:
    inner: Linear
    outer: Linear
    norm: Norm

    def __call__(self, x: Tensor) -> Tensor:
        return self.norm(x + self.outer(torch.relu(self.inner(x))))


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    queries_keys_values: Linear
    attention_output: Linear
    attention_norm: Norm
    feed_forward: FeedForward


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    candidate_forget: Linear
    """Both products of the SSRU in one: W x, then W_f x + b_f."""
    cell_norm: Norm
    queries: Linear
    keys_values: Linear
    attention_output: Linear
    attention_norm: Norm
    feed_forward: FeedForward


class Int8Embeddings:
    """Source, target and output embeddings in one matrix, kept as the int8 values of the file.

    The product with the whole vocabulary is most of a decoder step, and reading the matrix most of that product;
    a quarter of the bytes and the processor's int8 instructions (VNNI) make it 3 to 5 times faster than in float32.
    """

    def __init__(self, quants: Tensor, multiplier: float, bias: Tensor) -> None:
        """`quants`: int8 (V, D), `bias`: (V,). A weight is quant / multiplier."""
        self.quants, self.multiplier, self.bias = quants, multiplier, bias
        self.nbytes = quants.nbytes + bias.nbytes

    def look_up(self, ids: Tensor) -> Tensor:
        """Embeddings scaled by the root of D, as Marian trains them."""
        return self.quants[ids].float() * (math.sqrt(self.quants.shape[1]) / self.multiplier)

    def logits(self, x: Tensor) -> Tensor:
        """(lines, D) to (lines, V).

        Each activation is written with two int8 digits in base 254, so nearly nothing is lost to rounding
        (logits differ from float32's by about 1e-4) and a line does not depend on the others of its batch.
        """
        unit = x.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
        high = (x / unit).round()
        low = ((x / unit - high) * 254).round()
        digits = torch.cat((high, low)).to(torch.int8)
        high_product, low_product = torch.ops.aten._int_mm(digits, self.quants.T).chunk(2)  # int32, (lines, V) each
        return torch.addcmul(self.bias, high_product.float().add_(low_product, alpha=1 / 254), unit / self.multiplier)


class FloatEmbeddings:
    """The same in float32, for processors without VNNI: they are slow at products of int8, or their sums overflow."""

    def __init__(self, quants: Tensor, multiplier: float, bias: Tensor) -> None:
        self.weight, self.bias = (quants.float() / multiplier).T.contiguous(), bias  # (D, V), as a lone line wants it
        self.nbytes = self.weight.nbytes + bias.nbytes

    def look_up(self, ids: Tensor) -> Tensor:
        return self.weight.T[ids] * math.sqrt(len(self.weight))

    def logits(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class Weights:
    """Takes the tensors of a file by name, checks their shapes and counts their bytes."""

    def __init__(self, file: MarianFile) -> None:
        self.file = file
        for option, value in ARCHITECTURE.items():
            if file.config.get(option, value) != value:
                raise WeightsCorrupt(f"this engine cannot run a Marian model with {option}: {file.config[option]}")
        self.dimensions = self.option("dim-emb")
        self.nbytes = 0

    def option(self, name: str) -> int:
        value = self.file.config.get(name)
        if isinstance(value, list) and len(set(value)) == 1:  # one for source and one for target
            value = value[0]
        if not isinstance(value, int) or value < 1:
            raise WeightsCorrupt(f"the Marian model's configuration has {name}: {value}")
        return value

    def keep(self, tensor: Tensor) -> Tensor:
        self.nbytes += tensor.nbytes
        return tensor

    def linear(self, weight: str, bias: str, letters: str) -> Linear:
        """One product for what the file keeps apart, such as `Wq`, `Wk` and `Wv` for the letters `qkv`."""
        matrices = [self._tensor(weight + letter, self.dimensions, self.dimensions) for letter in letters]
        biases = [self._tensor(bias + letter, 1, self.dimensions) for letter in letters]
        names = [weight + letter for letter in letters]
        return self._linear(names, np.concatenate(matrices, 1), np.concatenate(biases, 1))

    def ssru(self, prefix: str) -> Linear:
        names = [prefix + suffix for suffix in ("_W", "_Wf")]
        matrices = [self._tensor(name, self.dimensions, self.dimensions) for name in names]
        forget_bias = self._tensor(prefix + "_bf", 1, self.dimensions)
        biases = np.concatenate((np.zeros_like(forget_bias), forget_bias), 1)
        return self._linear(names, np.concatenate(matrices, 1), biases)

    def feed_forward(self, prefix: str) -> FeedForward:
        inner = self.option("transformer-dim-ffn")
        return FeedForward(
            self._linear(
                [f"{prefix}_W1"],
                self._tensor(f"{prefix}_W1", self.dimensions, inner),
                self._tensor(f"{prefix}_b1", 1, inner),
            ),
            self._linear(
                [f"{prefix}_W2"],
                self._tensor(f"{prefix}_W2", inner, self.dimensions),
                self._tensor(f"{prefix}_b2", 1, self.dimensions),
            ),
            self.norm(f"{prefix}_ffn"),
        )

    def norm(self, prefix: str) -> Norm:
        scale, bias = (self._tensor(f"{prefix}_ln_{part}", 1, self.dimensions) for part in ("scale", "bias"))
        return Norm(self.keep(torch.from_numpy(scale[0])), self.keep(torch.from_numpy(bias[0])))

    def embeddings(self, unknown: int) -> Int8Embeddings | FloatEmbeddings:
        """Tied embeddings with the output bias, in which `unknown` is made impossible."""
        multiplier = self.file.multipliers.get(EMBEDDINGS)
        if multiplier is None:
            raise WeightsCorrupt(f"the Marian model's {EMBEDDINGS} is missing or not int8")
        floats = self._tensor(EMBEDDINGS, self.option("dim-vocabs"), self.dimensions)
        quants = torch.from_numpy(np.rint(floats * np.float32(multiplier)).astype(np.int8))
        bias = torch.from_numpy(self._tensor("decoder_ff_logit_out_b", 1, len(quants))[0])
        bias[unknown] = -math.inf
        kind = Int8Embeddings if torch.cpu._is_vnni_supported() else FloatEmbeddings
        embeddings = kind(quants, multiplier, bias)
        self.nbytes += embeddings.nbytes
        return embeddings

    def _linear(self, names: Sequence[str], matrix: np.ndarray, bias: np.ndarray) -> Any:
        """From Marian's (in, out) and (1, out); `names` are the tensors that lie side by side in the matrix."""
        weight = torch.from_numpy(np.ascontiguousarray(matrix)).T  # lies as (in, out): a fifth faster for a few lines
        return Linear(self.keep(weight), self.keep(torch.from_numpy(bias[0])))

    def _tensor(self, name: str, *shape: int) -> np.ndarray:
        tensor = self.file.tensors.get(name)
        if tensor is None or tensor.shape != shape:
            found = "missing" if tensor is None else f"of shape {tensor.shape}"
            raise WeightsCorrupt(f"the Marian model's {name} is {found}, not of shape {shape}")
        return tensor
