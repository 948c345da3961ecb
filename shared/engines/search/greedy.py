"""Greedy search: the likeliest token at every position, for any model that can give it (`beam` for more of them)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

Best = Callable[[Tensor | None, Tensor | None], tuple[Tensor, Tensor]]
"""`best(tokens, origin)` feeds each line its newest token (None at the start) and returns the greatest log-probability
of each line's next, float (lines,), and that token, int64 (lines,).

`origin` says which lines of the previous call are left, None that all are, so the model keeps `state[origin]`."""


def greedy_search(
    best: Best, *, end_ids: Collection[int], max_new_tokens: Sequence[int]
) -> list[tuple[list[int], float]]:
    """Of each row its new tokens, with the end token unless its `max_new_tokens` came first, and the sum of their
    log-probabilities (natural log). Rows that have ended leave the batch.
    """
    tokens: list[list[int]] = [[] for _ in max_new_tokens]
    totals = [0.0] * len(max_new_tokens)
    live = list(range(len(max_new_tokens)))  # which row each line of the batch is
    newest, origin = None, None
    while live:
        log_probabilities, newest = best(newest, origin)
        stay = []
        found = zip(live, newest.tolist(), log_probabilities.tolist(), strict=True)
        for line, (row, token, log_probability) in enumerate(found):
            tokens[row].append(token)
            totals[row] += log_probability
            if token not in end_ids and len(tokens[row]) < max_new_tokens[row]:
                stay.append(line)
        origin = None
        if len(stay) < len(live):
            origin = torch.tensor(stay, dtype=torch.long)
            newest, live = newest[origin], [live[line] for line in stay]
    return list(zip(tokens, totals, strict=True))
