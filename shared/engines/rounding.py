"""Rounding a matrix to int8 so that its products keep, not its numbers: GPTQ (Frantar et al. 2022).

What one column loses by rounding, the columns not rounded yet make up for, as far as their inputs go together. Which
inputs do, is seen in what the model itself writes, so no data is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

STEPS = 127
BLOCK = 64
DAMPING = 0.01
"""Share of the mean diagonal that is added to it, as in the paper."""


def rounded(weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as int8 of the same shape, and the size of one step of each row, float32 (out,).

    `inputs`: (in, in), the sum of x xᵀ over inputs x.
    """
    size = (weight.double().abs().amax(1) / STEPS).clamp_min(1e-12).float()
    inputs = inputs.double()
    inputs = inputs + DAMPING * inputs.diagonal().mean() * torch.eye(len(inputs), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(inputs))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    left = weight.float().clone()
    integers = torch.zeros(weight.shape, dtype=torch.int8)
    for start in range(0, left.shape[1], BLOCK):
        end = min(start + BLOCK, left.shape[1])
        block, lost = left[:, start:end].T.contiguous(), torch.zeros(end - start, len(left))
        for i in range(end - start):
            steps = (block[i] / size).round().clamp(-STEPS, STEPS)
            integers[:, start + i] = steps.to(torch.int8)
            lost[i] = (block[i] - steps * size) / upper[start + i, start + i]
            block[i:].addr_(upper[start + i, start + i : end], lost[i], alpha=-1)
        left[:, end:].addmm_(lost.T, upper[start:end, end:], alpha=-1)
    return integers, size


def inputs_of(model: Any, names: Mapping[str, str], rows: int = 32, tokens: int = 112) -> dict[str, Tensor]:
    """Sum of x xᵀ over the inputs of layers while a causal LM of transformers writes by itself: float64 (in, in).

    `names`: the result's key for each module's name.
    """
    sums: dict[str, Tensor] = {}

    def watch(key: str) -> Any:
        def before(_: nn.Module, given: tuple[Tensor]) -> None:
            x = given[0].reshape(-1, given[0].shape[-1]).double()
            sums[key] = sums.get(key, 0) + x.T @ x

        return before

    torch.manual_seed(0)
    start = torch.randint(model.config.vocab_size, (rows, 1))  # so that every text is about something else
    with torch.inference_mode():
        written = model.generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            top_k=0,
            top_p=0.95,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        handles = [m.register_forward_pre_hook(watch(names[n])) for n, m in model.named_modules() if n in names]
        for row in written:
            model(row[None])
    for handle in handles:
        handle.remove()
    return sums
