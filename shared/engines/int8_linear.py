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

import torch
from torch import Tensor, nn

STEPS = 127


def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A float matrix (out, in) as int8 of the same shape, and the size of one step of each row, float32 (out,)."""
    size = (weight.float().abs().amax(1) / STEPS).clamp_min(1e-12)
    return (weight.float() / size[:, None]).round().to(torch.int8), size


def processor_has_int8() -> bool:
    """Whether the processor sums products of int8 exactly in one instruction (VNNI).

    Without it FBGEMM's sums of 8-bit activations overflow, and float32 is as fast.
    """
    return "fbgemm" in torch.backends.quantized.supported_engines and bool(torch.cpu._is_vnni_supported())


class Int8Linear(nn.Module):
    """(rows, in) float32 to (rows, out) float32."""

    def __init__(self, integers: Tensor, size: Tensor, digits: int = 1) -> None:
        """`integers` (out, in) and `size` (out,), as `int8_rows` gives them.

        With two `digits` an activation is written as two int8, in base 254, and nothing is lost of it: for inputs with
        a few large values, beside which one digit leaves nothing of the others. Costs one row more for each.
        """
        super().__init__()
        self.digits = digits
        self.nbytes = integers.numel() + 8 * len(size)
        with warnings.catch_warnings():
            # "deprecated and will be removed in a future release": the version is pinned, and the reference engine is
            # there for one that has it no more.
            warnings.simplefilter("ignore", UserWarning)
            torch.backends.quantized.engine = "fbgemm"
            weight = torch._make_per_channel_quantized_tensor(integers, size.double(), torch.zeros(len(size)).long(), 0)
            self.packed = torch.ops.quantized.linear_prepack(weight, None)

    def forward(self, x: Tensor) -> Tensor:
        size = x.abs().amax(-1, keepdim=True).clamp_min(1e-12)
        unit = x / size
        if self.digits == 1:
            return self._product(unit).mul_(size)
        steps = unit * 127
        high, low = self._product(torch.cat((unit, (steps - steps.round()).mul_(2)))).chunk(2)
        return high.add_(low, alpha=1 / 254).mul_(size)

    def _product(self, unit: Tensor) -> Tensor:
        return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(unit, 1 / 127, 128, self.packed)


class FloatLinear(nn.Module):
    """The same in float32, for processors without int8 and for checkpoints published in float32."""

    def __init__(self, weight: Tensor) -> None:
        """`weight`: float32 (out, in)."""
        super().__init__()
        self.nbytes = weight.nbytes
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight)
