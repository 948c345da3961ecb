"""From logits to the distribution a token is drawn from.

Exactly what transformers' `generate` does, because it is done by its own logits processors, in its order:
repetition penalty, temperature, top-k, top-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shared.engines import Sampling

if TYPE_CHECKING:
    import torch


def adjusted(logits: torch.Tensor, sampling: Sampling, seen: Sequence[int] = ()) -> torch.Tensor:
    """Logits after the penalty and, when sampling, temperature, top-k and top-p.

    `logits`: float32, shape (vocabulary,). `seen`: the token ids so far. Excluded tokens become -inf.
    Note that top-p keeps the smallest set of tokens whose probabilities add up to at least `top_p`:
    the token that crosses the line is in.
    """
    import torch
    from transformers.generation.logits_process import (
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    ids = torch.LongTensor([list(seen)])
    scores: Any = logits[None, :]
    if sampling.repetition_penalty != 1.0 and seen:
        scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, scores)
    if sampling.do_sample:
        if sampling.temperature != 1.0:
            scores = TemperatureLogitsWarper(sampling.temperature)(ids, scores)
        if sampling.top_k:
            scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
        if sampling.top_p < 1.0:
            scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    return scores[0]
