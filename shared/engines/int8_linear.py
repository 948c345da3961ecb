"""Linear layers: one whose weights stay int8, what turns a float matrix into one, and the plain one beside it.

A weight row is so many steps of its own size (the row's greatest weight is 127 steps), and so is an activation row.
The products are sums of integers, so a row's result does not depend on the other rows of its batch, bit for bit: a text
does not change because somebody else's is computed beside it. (PyTorch's own dynamic quantisation takes one size of
step for all rows.)

The kernel is FBGEMM's, which PyTorch brings. On this project's two-core machine it streams weights at 13 GB/s on one
thread, where PyTorch's others for int8 (`_int_mm`, oneDNN, `_weight_int8pack_mm`) reach 6 to 8.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

STEPS, BASE = 127, 254

ONE_CORE = 1
"""What a step of these networks gets. Its products are so short that OpenMP's second thread costs more than it brings
(a token of SmolLM2: 25 ms on one thread, 52 on two); the other core is for another batch, or for the server."""


def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A float matrix (out, in) as int8 of the same shape, and the size of one step of each row, float32 (out,)."""
    size = (weight.float().abs().amax(1) / STEPS).clamp_min(1e-12)
    return (weight.float() / size[:, None]).round().to(torch.int8), size


def low_digits(weight: Tensor, integers: Tensor, size: Tensor) -> Tensor:
    """What `int8_rows` rounded away, as second digits: int8 (out, in), of `size / BASE` each."""
    rest = weight.float() / size[:, None] - integers.float()
    return (rest * BASE).round().clamp(-STEPS, STEPS).to(torch.int8)


def rounded_away(weight: Tensor, integers: Tensor, size: Tensor, columns: Tensor) -> Tensor:
    """What is missing of some columns of a matrix, float32 (columns, out)."""
    return (weight.float() - integers.float() * size[:, None])[:, columns].T.contiguous()


def processor_has_int8() -> bool:
    """Whether the processor sums products of int8 exactly in one instruction (VNNI).

    Without it FBGEMM's sums of 8-bit activations overflow, and float32 is as fast.
    """
    return "fbgemm" in torch.backends.quantized.supported_engines and bool(torch.cpu._is_vnni_supported())


class Int8Linear(nn.Module):
    """(rows, in) float32 to (rows, out) float32."""

    def __init__(
        self,
        integers: Tensor,
        size: Tensor,
        digits: int = 1,
        bias: Tensor | None = None,
        low: Tensor | None = None,
        columns: Tensor | None = None,
        correction: Tensor | None = None,
    ) -> None:
        """`integers` (out, in) and `size` (out,), as `int8_rows` gives them; `bias` float32 (out,).

        With two `digits` an activation is written as two int8, in base 254, and next to nothing is lost of it: for
        inputs with a few large values, beside which one digit leaves little of the others. `low`, (n, in): the second
        digits of the last n rows of weights (`low_digits`). `columns`, (k,) int64, and `correction`, (k, out) float32:
        what rounding took from the weights of the few inputs that are by far the largest (`rounded_away`; the idea is
        that of LLM.int8(), Dettmers et al. 2022).
        """
        super().__init__()
        self.digits = digits
        self.bias = torch.zeros(len(size)) if bias is None else bias
        self.packed = _packed(integers, size)
        self.lows = 0 if low is None else len(low)
        self.packed_low = self.packed if low is None else _packed(low, size[-len(low) :] / BASE)
        self.columns = torch.empty(0, dtype=torch.long) if columns is None else columns
        self.correction = torch.empty(0, len(size)) if correction is None else correction
        self.nbytes = integers.numel() + (0 if low is None else low.numel()) + 8 * len(size) + self.correction.nbytes

    def forward(self, x: Tensor) -> Tensor:
        size = x.abs().amax(-1, keepdim=True).clamp_min(1e-12)
        unit = x / size
        if self.digits == 1:
            found = _product(unit, self.packed)
        else:
            steps = unit * 127
            found, rest = _product(torch.cat((unit, (steps - steps.round()).mul_(2))), self.packed).chunk(2)
            found.add_(rest, alpha=1 / 254)
        if self.lows > 0:
            found[:, found.shape[1] - self.lows :] += _product(unit, self.packed_low)
        found = torch.addcmul(self.bias, found, size)
        if len(self.columns) > 0:
            found.addmm_(x.index_select(1, self.columns), self.correction)
        return found


def _product(unit: Tensor, packed: Any) -> Tensor:
    """Activations between -1 and 1, rounded to 127 steps on either side, times packed weights."""
    return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(unit, 1 / 127, 128, packed)


def _packed(integers: Tensor, size: Tensor) -> Any:
    with warnings.catch_warnings():
        # "deprecated and will be removed in a future release": the version is pinned, and the reference engine is
        # there for one that has it no more.
        warnings.simplefilter("ignore", UserWarning)
        torch.backends.quantized.engine = "fbgemm"
        weight = torch._make_per_channel_quantized_tensor(integers, size.double(), torch.zeros(len(size)).long(), 0)
        return torch.ops.quantized.linear_prepack(weight, None)


class FloatLinear(nn.Module):
    """The same in float32, for processors without int8 and for checkpoints published in float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """`weight`: float32 (out, in); `bias`: (out,)."""
        super().__init__()
        self.nbytes = weight.nbytes
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)
