"""The forward pass of Llama-like decoders (SmolLM2, Llama 2 and 3), for many sequences at once.

Grouped-query attention, rotary positions, RMS norms, SwiGLU (Touvron et al. 2023; Ainslie et al. 2023). The tokens of
all sequences are one matrix, without padding; only attention looks at each sequence by itself. What is computed stands
in `llama_kernels`: all layers in one call or, with an adapter, layer by layer, so that it can add its part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.engines import llama_kernels as kernels
from shared.engines.adapter import active
from shared.engines.llama_kernels import LANES, Matrix, Network, Sequences
from shared.engines.stored_weights import parts_of, stored


@dataclass(frozen=True, slots=True)
class Shape:
    """What the network is made of; all of it stands in a checkpoint's config."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    width: int
    inner: int
    vocabulary: int
    epsilon: float
    theta: float
    positions: int

    @property
    def memory_floats(self) -> int:
        """Numbers that one token leaves in the key-value memory."""
        return self.layers * 2 * self.kv_heads * self.head_size


MERGED = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attended": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Which published matrices are one here, because they read the same input: one below the other."""

EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"
NORMS = ("input_layernorm", "post_attention_layernorm")


class LlamaNetwork:
    """Reads tokens of several sequences, each with a memory of its own."""

    def __init__(self, weights: Mapping[str, Tensor], shape: Shape) -> None:
        """`weights` as `network_weights` gives them; they stay where they are, in a mapped file for instance."""
        self.shape = shape
        rates = 1.0 / shape.theta ** (torch.arange(0, shape.head_size, 2).float() / shape.head_size)
        angles = torch.arange(shape.positions).float()[:, None] * rates
        self.stacked = Network(
            *(_matrix(weights, name) for name in MERGED),
            inner=shape.inner,
            norms=weights["norms"].numpy(),
            cosines=angles.cos().numpy(),
            sines=angles.sin().numpy(),
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_size=shape.head_size,
            epsilon=shape.epsilon,
        )
        self.embedding = kernels.layer_of(_matrix(weights, "embedding"), 0)
        self.norm = weights["norm"].numpy()
        self.layers = [Layer(self.stacked, number, shape) for number in range(shape.layers)]
        self.nbytes = sum(tensor.nbytes for tensor in weights.values()) + 2 * angles.nbytes
        self.stored_as = {"int8": "int8", "uint16": "bf16"}.get(str(self.stacked.down.integers.dtype), "fp32")

    def states(self, ids: np.ndarray, sequences: Sequences, kept: np.ndarray) -> np.ndarray:
        """The normed states of the `kept` tokens after the last layer: float32 (kept, width).

        `ids`, int64 (tokens,): the new tokens of all sequences one after the other, which are written into their
        memories.
        """
        x = np.empty((len(ids), self.shape.width), np.float32)
        kernels.embed(ids, self.embedding, x)
        if active() is None:
            kernels.forward(self.stacked, x, sequences)
        else:
            for layer in self.layers:
                layer(x, sequences)
        x = x[kept]
        kernels.normed(x, self.norm, self.shape.epsilon, x)
        return x

    def logits(self, states: np.ndarray) -> np.ndarray:
        """float32 (rows, vocabulary)."""
        out = np.empty((len(states), len(self.embedding.integers) * LANES), np.float32)
        kernels.product(states, self.embedding, out)
        return out[:, : self.shape.vocabulary]


class Layer:
    """One layer by itself, its matrices as modules that an adapter can change."""

    def __init__(self, network: Network, number: int, shape: Shape) -> None:
        self._network, self._number, self._shape = network, number, shape
        sizes = widths(shape)
        self.products = {
            own: Product(kernels.layer_of(getattr(network, own), number), sum(sizes[name] for name in names))
            for own, names in MERGED.items()
        }

    def __call__(self, x: np.ndarray, sequences: Sequences) -> None:
        """As in `kernels.forward`: float32 (tokens, width), in place."""
        attended = np.empty((len(x), self._shape.heads * self._shape.head_size), np.float32)
        qkv = self._product("qkv", self._normed(x, 0))
        kernels.attend(self._network, self._number, qkv, sequences, attended)
        kernels.add(x, self._product("attended", attended))
        activated = np.empty((len(x), self._shape.inner), np.float32)
        kernels.activate(self._product("gate_up", self._normed(x, 1)), activated)
        kernels.add(x, self._product("down", activated))

    def _normed(self, x: np.ndarray, which: int) -> np.ndarray:
        out = np.empty_like(x)
        kernels.normed(x, self._network.norms[self._number, which], self._shape.epsilon, out)
        return out

    def _product(self, name: str, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.products[name](torch.from_numpy(x)).numpy())


class Product(nn.Module):
    """(rows, in) float32 to (rows, out) float32."""

    def __init__(self, matrix: Matrix, out: int) -> None:
        super().__init__()
        self._matrix, self._out = matrix, out

    def forward(self, x: Tensor) -> Tensor:
        result = np.empty((len(x), len(self._matrix.integers) * LANES), np.float32)
        kernels.product(np.ascontiguousarray(x.numpy()), self._matrix, result)
        return torch.from_numpy(result)[:, : self._out]


# -- weights ---------------------------------------------------------------------------------------


def shape_of(config: Any) -> Shape | None:
    """The shape by a checkpoint's config; None for an architecture that is not written down here."""
    rope = getattr(config, "rope_parameters", None) or {}
    known = (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
        and config.tie_word_embeddings
        and rope.get("rope_type", "default") == "default"
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and all(size % 4 == 0 for size in (config.hidden_size, config.intermediate_size, config.head_dim))
    )
    if not known:
        return None
    return Shape(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=config.head_dim,
        width=config.hidden_size,
        inner=config.intermediate_size,
        vocabulary=config.vocab_size,
        epsilon=config.rms_norm_eps,
        theta=float(rope["rope_theta"]),
        positions=config.max_position_embeddings,
    )


def widths(shape: Shape) -> dict[str, int]:
    """Outputs of each published matrix of a layer."""
    return {
        "self_attn.q_proj": shape.heads * shape.head_size,
        "self_attn.k_proj": shape.kv_heads * shape.head_size,
        "self_attn.v_proj": shape.kv_heads * shape.head_size,
        "self_attn.o_proj": shape.width,
        "mlp.gate_proj": shape.inner,
        "mlp.up_proj": shape.inner,
        "mlp.down_proj": shape.width,
    }


def network_weights(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """A checkpoint's weights, float32 (out, in) as transformers has them, as `LlamaNetwork` takes them."""
    found = {"norm": state[NORM].float().contiguous(), **stored("embedding", [state[EMBEDDING].float()])}
    layers = [f"model.layers.{number}." for number in range(shape.layers)]
    found["norms"] = torch.stack([torch.stack([state[f"{at}{n}.weight"].float() for n in NORMS]) for at in layers])
    for own, names in MERGED.items():
        found |= stored(own, [torch.cat([state[f"{at}{name}.weight"].float() for name in names]) for at in layers])
    return found


def _matrix(weights: Mapping[str, Tensor], name: str) -> Matrix:
    integers, steps, offsets = (part.numpy() for part in parts_of(weights, name))
    return Matrix(integers.view(np.uint16) if integers.dtype == np.int16 else integers, steps, offsets)


def sequences_of(
    positions: Sequence[int],
    memories: Sequence[Tensor],
    read: Sequence[int],
    new: Sequence[int],
    seen: Sequence[Tensor | None],
) -> Sequences:
    """What is computed in one step, for each sequence: see `kernels.Sequences`. The tensors must outlive it."""
    return Sequences(
        positions=np.array(positions, np.int64),
        memories=np.array([memory.data_ptr() for memory in memories], np.int64),
        rooms=np.array([memory.shape[3] for memory in memories], np.int64),
        read=np.array(read, np.int64),
        new=np.array(new, np.int64),
        seen=np.array([0 if mask is None else mask.data_ptr() for mask in seen], np.int64),
    )
