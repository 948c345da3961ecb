"""From logits to the distribution a token is drawn from.

What transformers' `generate` does, in its order: repetition penalty, temperature, top-k, top-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shared.engines.protocols import Sampling

if TYPE_CHECKING:
    import torch

NUCLEUS = 1024
"""So many of the likeliest tokens nearly always hold all that top-p keeps; sorting them takes a tenth of the time."""


def draw(logits: torch.Tensor, sampling: Sampling, seen: Sequence[int], randomness: torch.Generator) -> int:
    """The next token: the likeliest, or one drawn from the adjusted distribution with one number of `randomness`.

    `logits`: float32, shape (vocabulary,). `seen`: the token ids so far, for the repetition penalty.
    """
    import torch

    if not sampling.do_sample:
        return int(_penalised(logits, sampling, seen).argmax())
    tokens, scores = _candidates(logits, sampling, seen)
    reached = scores.double().softmax(0).cumsum(0)
    place = int(torch.searchsorted(reached, torch.rand(1, generator=randomness, dtype=torch.float64) * reached[-1]))
    return int(tokens[min(place, len(tokens) - 1)])


def adjusted(logits: torch.Tensor, sampling: Sampling, seen: Sequence[int] = ()) -> torch.Tensor:
    """Logits after the penalty and, when sampling, temperature, top-k and top-p.

    `logits`: float32, shape (vocabulary,). `seen`: the token ids so far. Excluded tokens become -inf.
    Note that top-p keeps the smallest set of tokens whose probabilities add up to at least `top_p`:
    the token that crosses the line is in.
    """
    import torch

    if not sampling.do_sample:
        return _penalised(logits, sampling, seen)
    tokens, scores = _candidates(logits, sampling, seen)
    return torch.full_like(logits, -torch.inf).scatter(0, tokens, scores)


def _penalised(logits: torch.Tensor, sampling: Sampling, seen: Sequence[int]) -> torch.Tensor:
    import torch
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    if sampling.repetition_penalty == 1.0 or not seen:
        return logits
    scores: Any = logits[None, :]
    return RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(torch.LongTensor([list(seen)]), scores)[0]


def _candidates(logits: torch.Tensor, sampling: Sampling, seen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that are left to choose from, in the order of the vocabulary, and their scores.

    Past top-k only those few are looked at: top-p over a whole vocabulary takes five times as long.
    """
    import torch

    scores = _penalised(logits, sampling, seen) / sampling.temperature
    if sampling.top_k:
        least = scores.topk(min(sampling.top_k, len(scores))).values[-1]
        tokens = (scores >= least).nonzero()[:, 0]  # those as likely as the last of them too, as transformers has it
        scores = scores[tokens]
    else:
        tokens = torch.arange(len(scores))
    if sampling.top_p < 1.0:
        kept = _nucleus(scores[None], sampling.top_p)[0] > -torch.inf
        tokens, scores = tokens[kept], scores[kept]
    return tokens, scores


def _nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Top-p (Holtzman et al. 2020) as transformers' `TopPLogitsWarper` has it, without sorting the whole vocabulary."""
    import torch

    total = scores.logsumexp(1)
    for most in (NUCLEUS, scores.shape[1]):
        likeliest, places = scores.topk(min(most, scores.shape[1]))
        mass = (likeliest - total).exp().sum()
        if mass >= top_p:
            break
    # From the least likely up, in the order of the vocabulary, as transformers does: of equals the same ones stay.
    places = places.sort(1)[0]
    ascending, order = scores.gather(1, places).sort(1)
    excluded = (1 - mass) + (ascending - total).exp().cumsum(1) <= 1 - top_p
    excluded[:, -1] = False
    places = places.gather(1, order)
    return torch.full_like(scores, -torch.inf).scatter(1, places, ascending.masked_fill(excluded, -torch.inf))
