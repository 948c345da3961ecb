"""The forward pass of Llama-like decoders (SmolLM2, Llama 2 and 3), for many sequences at once, weights in int8.

Grouped-query attention, rotary positions, RMS norms, SwiGLU (Touvron et al. 2023; Ainslie et al. 2023). The tokens of
all sequences are one matrix, without padding; only attention looks at each sequence by itself, so what a sequence gets
does not depend on what is computed beside it. The class is plain enough for TorchScript, which runs a pass without
Python: half the time of a small model's step, and none of the interpreter's lock, which the server's threads want too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, List, Optional  # noqa: UP035 - TorchScript reads these

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from shared.engines.int8_linear import FloatLinear, Int8Linear, int8_rows
from shared.engines.rounding import rounded


@dataclass(frozen=True, slots=True)
class Shape:
    """What the network is made of; all of it stands in a checkpoint's config."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    epsilon: float
    theta: float
    positions: int

    @property
    def memory_floats(self) -> int:
        """Numbers that one token leaves in the key-value memory."""
        return self.layers * 2 * self.kv_heads * self.head_size


EMBEDDING, NORM, ROTATION = "model.embed_tokens.weight", "model.norm.weight", "rotation"


NORMED = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
"""Which matrices read what a norm gives."""


class Layer(nn.Module):
    def __init__(self, weights: Mapping[str, Tensor], number: int, shape: Shape) -> None:
        super().__init__()
        at = f"model.layers.{number}."
        self.number, self.epsilon = number, shape.epsilon
        self.heads, self.kv_heads, self.head_size = shape.heads, shape.kv_heads, shape.head_size
        self.groups = shape.heads // shape.kv_heads
        self.qkv = _linear(weights, *(f"{at}self_attn.{name}_proj" for name in "qkv"))
        self.attended = _linear(weights, f"{at}self_attn.o_proj")
        self.gate_up = _linear(weights, f"{at}mlp.gate_proj", f"{at}mlp.up_proj")
        self.down = _linear(weights, f"{at}mlp.down_proj")
        # Not computed with: they are in the matrices behind them. An adapter's own matrices want them too.
        self.norms = {name: weights[f"{at}{name}.weight"] for name in NORMED}

    def forward(
        self,
        x: Tensor,
        cosines: Tensor,
        sines: Tensor,
        memories: List[Tensor],  # noqa: UP006
        read: List[int],  # noqa: UP006
        new: List[int],  # noqa: UP006
        masks: List[Optional[Tensor]],  # noqa: UP006, UP045
    ) -> Tensor:
        heads, kv_heads, groups, size = self.heads, self.kv_heads, self.groups, self.head_size
        qkv = self.qkv(_normed(x, self.epsilon)).view(x.shape[0], heads + 2 * kv_heads, size)
        qk = qkv[:, : heads + kv_heads]
        # Rotary positions: the second half of a head times the sine goes to the first, negative, and the other way.
        qk.copy_(qk * cosines + qk.roll(size // 2, 2) * sines)
        attended: List[Tensor] = []  # noqa: UP006
        at = 0
        for row in range(len(memories)):
            n, end = new[row], read[row] + new[row]
            memory = memories[row][self.number]
            memory[:, :, read[row] : end] = qkv[at : at + n, heads:].view(n, 2, kv_heads, size).permute(1, 2, 0, 3)
            # The queries that share a head's keys are so many queries to it, one below the other.
            queries = qkv[at : at + n, :heads].view(n, kv_heads, groups, size).permute(1, 2, 0, 3)
            found = F.scaled_dot_product_attention(
                queries.reshape(1, kv_heads, groups * n, size),
                memory[0, :, :end].unsqueeze(0),
                memory[1, :, :end].unsqueeze(0),
                attn_mask=masks[row],
            )
            attended.append(found.view(kv_heads, groups, n, size).permute(2, 0, 1, 3).reshape(n, heads * size))
            at += n
        x = x + self.attended(torch.cat(attended))
        gate, up = self.gate_up(_normed(x, self.epsilon)).chunk(2, 1)
        return x + self.down(F.silu(gate) * up)


class LlamaNetwork(nn.Module):
    """Reads tokens of several sequences, each with a memory of its own."""

    def __init__(self, weights: Mapping[str, Tensor], shape: Shape) -> None:
        """`weights` as `network_weights` gives them."""
        super().__init__()
        self.epsilon = shape.epsilon
        self.heads, self.kv_heads, self.head_size = shape.heads, shape.kv_heads, shape.head_size
        self.embedding = nn.Buffer(weights[EMBEDDING])
        self.width = self.embedding.shape[1]
        self.inner = weights["model.layers.0.mlp.up_proj.weight"].shape[0]
        self.layers = nn.ModuleList([Layer(weights, number, shape) for number in range(shape.layers)])
        self.head = _linear(weights, "lm_head")
        self.rotation = nn.Buffer(weights[ROTATION])
        self.norm = nn.Buffer(weights[NORM])
        rates = 1.0 / shape.theta ** (torch.arange(0, shape.head_size, 2).float() / shape.head_size)
        angles = torch.arange(shape.positions).float()[:, None] * rates
        self.cosines = nn.Buffer(torch.cat((angles.cos(), angles.cos()), 1)[:, None])
        self.sines = nn.Buffer(torch.cat((-angles.sin(), angles.sin()), 1)[:, None])
        linear = [module.nbytes for module in self.modules() if isinstance(module, (Int8Linear, FloatLinear))]
        self.nbytes = sum(linear) + sum(buffer.nbytes for buffer in self.buffers())

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        memories: List[Tensor],  # noqa: UP006
        read: List[int],  # noqa: UP006
        new: List[int],  # noqa: UP006
        masks: List[Optional[Tensor]],  # noqa: UP006, UP045
        kept: Tensor,
    ) -> Tensor:
        """The states of the `kept` tokens after the last layer, normed and turned: float32 (kept, width).

        `ids` and `positions`, (tokens,): the new tokens of all sequences one after the other. For each sequence:
        its memory (layers, 2, kv_heads, room, head_size), which the new tokens are written into; how many tokens that
        holds already; how many are new; and what each new token may look at, float (1, 1, groups * new, read + new),
        0 or minus infinity, None for a single one, which looks at all.
        """
        x = self.embedding[ids].float()
        cosines, sines = self.cosines[positions], self.sines[positions]
        for layer in self.layers:
            x = layer(x, cosines, sines, memories, read, new, masks)
        return _normed(x[kept], self.epsilon)

    @torch.jit.unused
    def as_published(self, state: Tensor) -> Tensor:
        """A state as the published network has it: turned back, and with the last norm's weights."""
        return (state @ self.rotation.T) * self.norm


def _normed(x: Tensor, epsilon: float) -> Tensor:
    """To a root mean square of 1. The norm's own weights are in the matrices behind it."""
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + epsilon)


def _linear(weights: Mapping[str, Tensor], *names: str) -> Int8Linear | FloatLinear:
    """One product for several matrices that read the same input."""
    matrix = torch.cat([weights[f"{name}.weight"] for name in names])
    if matrix.dtype != torch.int8:
        return FloatLinear(matrix)
    return Int8Linear(matrix, torch.cat([weights[f"{name}.weight.size"] for name in names]), digits=2)


def shape_of(config: Any) -> Shape | None:
    """The shape by a checkpoint's config; None for an architecture that is not written down here."""
    rope = getattr(config, "rope_parameters", None) or {}
    plain = (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
        and config.tie_word_embeddings
        and rope.get("rope_type", "default") == "default"
        and rope.get("partial_rotary_factor", 1.0) == 1.0
    )
    if not plain:
        return None
    return Shape(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=config.head_dim,
        epsilon=config.rms_norm_eps,
        theta=float(rope["rope_theta"]),
        positions=config.max_position_embeddings,
    )


def network_weights(
    state: Mapping[str, Tensor], shape: Shape, *, int8: bool, inputs: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """A checkpoint's weights as `LlamaNetwork` takes them: the norms' own moved into the matrices behind them.

    In int8, matrices come with their row sizes under `<name>.size`, and the stream between the layers is turned by a
    random rotation (QuaRot, Ashkboos et al. 2024): its few large channels, which spoil an int8 row, are spread over all
    of them. Norms do not see it once their weights have moved, so all of it is done here and costs nothing later.
    `inputs`: what `rounding.inputs_of` gives by `watched_inputs`; with it, matrices are rounded by GPTQ. On
    SmolLM2-135M the divergence from float32's next-token probabilities is 0.085 if weights and activations are simply
    rounded, 0.007 turned and with two digits for activations, and 0.002 with GPTQ besides.
    The input embeddings stay in bfloat16: they are looked up, row by row, in the mapped file.
    """
    embedding = state[EMBEDDING].double()
    width = embedding.shape[1]
    rotation = _rotation(width) if int8 else torch.eye(width, dtype=torch.float64)
    turned = embedding @ rotation
    found = {ROTATION: rotation.float(), EMBEDDING: turned.bfloat16() if int8 else turned.float()}
    found |= {name: tensor.float() for name, tensor in state.items() if name.endswith("norm.weight")}

    def keep(name: str, matrix: Tensor, seen: Tensor | None) -> None:
        if int8:
            found[name], found[f"{name}.size"] = int8_rows(matrix) if seen is None else rounded(matrix, seen)
        else:
            found[name] = matrix.float()

    def keep_behind(norm: str, name: str, matrix: Tensor) -> None:
        scale, seen = state[f"{norm}.weight"].double(), (inputs or {}).get(norm)
        if seen is not None:
            seen = rotation.T @ (seen / scale[:, None] / scale) @ rotation
        keep(name, (matrix.double() * scale) @ rotation, seen)

    keep_behind("model.norm", "lm_head.weight", embedding)
    for number in range(shape.layers):
        at = f"model.layers.{number}."
        for norm, names in NORMED.items():
            for name in names:
                keep_behind(f"{at}{norm}", f"{at}{name}.weight", state[f"{at}{name}.weight"])
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            seen = (inputs or {}).get(f"{at}{name}")
            keep(f"{at}{name}.weight", rotation.T @ state[f"{at}{name}.weight"].double(), seen)
    return found


def watched_inputs(shape: Shape) -> dict[str, str]:
    """The published layers whose inputs decide how matrices are rounded, and under what name those are kept."""
    found = {"lm_head": "model.norm"}
    for number in range(shape.layers):
        at = f"model.layers.{number}."
        found |= {f"{at}{names[0]}": f"{at}{norm}" for norm, names in NORMED.items()}
        found |= {f"{at}{name}": f"{at}{name}" for name in ("self_attn.o_proj", "mlp.down_proj")}
    return found


def _rotation(width: int) -> Tensor:
    """A random orthogonal matrix, the same every time: float64 (width, width)."""
    matrix = torch.randn(width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(matrix)[0]


def mask_of(seen: Sequence[Sequence[bool]] | Tensor, groups: int) -> Tensor:
    """What new tokens may look at, bool (new, read + new), in the form that attention takes."""
    allowed = torch.as_tensor(seen)
    return torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf")).repeat(groups, 1)[None, None]
