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

STEPS = 127

ONE_CORE = 1
"""What a step of these networks gets. Its products are so short that OpenMP's second thread costs more than it brings
(a token of SmolLM2: 25 ms on one thread, 52 on two); the other core is for another batch, or for the server."""


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

    def __init__(self, integers: Tensor, size: Tensor, digits: int = 1, bias: Tensor | None = None) -> None:
        """`integers` (out, in) and `size` (out,), as `int8_rows` gives them; `bias` float32 (out,).

        With two `digits` an activation is written as two int8, in base 254, and next to nothing is lost of it: for
        inputs with a few large values, beside which one digit leaves little of the others.
        """
        super().__init__()
        self.digits = digits
        self.bias = torch.zeros(len(size)) if bias is None else bias
        self.packed = _packed(integers, size)
        self.nbytes = integers.numel() + 8 * len(size)

    def forward(self, x: Tensor) -> Tensor:
        # The kernel rounds activations between -1 and 1 to 127 steps on either side. It is called from here and not
        # through a function of its own, whose argument `packed` TorchScript has no name for the type of.
        size = x.abs().amax(-1, keepdim=True).clamp_min(1e-12)
        unit = x / size
        if self.digits == 1:
            product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(unit, 1 / 127, 128, self.packed)
            return torch.addcmul(self.bias, product, size)
        steps = unit * 127
        digits = torch.cat((unit, (steps - steps.round()).mul_(2)))
        products = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(digits, 1 / 127, 128, self.packed)
        high, low = products.chunk(2)
        return torch.addcmul(self.bias, high.add_(low, alpha=1 / 254), size)


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
