"""Self-attention of many texts whose tokens are one matrix, without padding: a text looks at itself alone."""

from __future__ import annotations

from typing import List  # noqa: UP035 - TorchScript reads it

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor


def unpadded_attention(qkv: Tensor, lengths: List[int], heads: int) -> Tensor:  # noqa: UP006
    """Queries, keys and values side by side (tokens, 3 * width) to (tokens, width).

    `lengths`: tokens of each text, whose sum is the tokens of all.
    """
    attended: List[Tensor] = []  # noqa: UP006
    for text in qkv.split(lengths):
        # to queries, keys and values of shape (1, heads, tokens, width / heads)
        q, k, v = text.view(text.shape[0], 3, heads, -1).permute(1, 2, 0, 3).unsqueeze(1).unbind(0)
        found = F.scaled_dot_product_attention(q, k, v)
        attended.append(found[0].transpose(0, 1).reshape(text.shape[0], qkv.shape[1] // 3))
    return torch.cat(attended)
