"""Beam search, for any model that can give log-probabilities of the next token.

Same results as `transformers` 5 `generate(num_beams=n, do_sample=False)` (`GenerationMixin._beam_search`) with
`early_stopping` false or true, which tests/shared/engines/search/test_beam.py checks. Two things differ in how
they get there: rows that can no longer improve leave the batch at once, and each row has its own
`max_new_tokens`, so a row's answer does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Advance = Callable[[Tensor, Tensor], Tensor]
"""`advance(tokens, origin)`, both int64 of shape (live rows * beams,): feeds each beam its new token and returns
float32 log-probabilities of shape (live rows * beams, vocabulary).

`origin` says which line of the *previous* log-probabilities each beam continues, so the model reorders its state
by it: `state = state[origin]`. On the first call those lines are the rows of `first`, later the beams. Beams of a
row lie side by side. The lines of rows that are done are missing from `origin`, so the state shrinks with them."""

IMPOSSIBLE = -1.0e9
"""Stands for minus infinity without turning sums into NaN; the constant transformers uses."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The best sequence of one row."""

    tokens: list[int]
    """New tokens, with the end token unless `max_new_tokens` came first."""
    score: float
    """Sum of log-probabilities (natural log) divided by `len(tokens) ** length_penalty`."""


Steps = Generator[tuple[Tensor, Tensor], Tensor, list[Hypothesis]]
"""Gives out what `Advance` is given, takes what that returns, and ends with the best of each row."""


def beam_search(first: Tensor, advance: Advance, **asked: Any) -> list[Hypothesis]:
    """The best sequence for each row of `first`; arguments as of `beam_steps`."""
    steps, log_probs = beam_steps(first, **asked), None
    while True:
        try:
            tokens, origin = next(steps) if log_probs is None else steps.send(log_probs)
        except StopIteration as end:
            return end.value
        log_probs = advance(tokens, origin)


@torch.inference_mode()
def beam_steps(
    first: Tensor,
    *,
    end_ids: Sequence[int],
    num_beams: int,
    max_new_tokens: Sequence[int],
    length_penalty: float = 1.0,
    early_stopping: bool = False,
) -> Steps:
    """The best sequence for each row of `first`, log-probabilities of the first new token, shape (rows, vocabulary).

    A row ends once its `num_beams` finished sequences are all at least as good as its best open beam would be if
    it stopped now, or with `early_stopping` as soon as it has so many, or at its own `max_new_tokens` (1 or more).
    """
    candidates = max(2, 1 + len(end_ids)) * num_beams  # so many that num_beams stay open even if the best all end
    if first.shape[-1] < candidates:
        raise ValueError(f"{num_beams} beams need a vocabulary of {candidates} tokens or more, not {first.shape[-1]}")
    if min(max_new_tokens, default=1) < 1:
        raise ValueError("max_new_tokens must be 1 or more in every row")
    results = [Hypothesis([], IMPOSSIBLE)] * len(first)
    rows = torch.arange(len(first))  # which row of `first` each live row is
    limits, ends = torch.tensor(max_new_tokens, dtype=torch.long), torch.tensor(end_ids, dtype=torch.long)

    # Open beams: one empty one in each row. Finished ones: num_beams empty places in each row.
    longest = max(max_new_tokens, default=0)
    open_tokens, open_scores = torch.full((len(rows), 1, longest), -1), torch.zeros(len(rows), 1)
    done_tokens = torch.full((len(rows), num_beams, longest), -1)
    done_scores = torch.full((len(rows), num_beams), IMPOSSIBLE)
    is_done = torch.zeros(len(rows), num_beams, dtype=torch.bool)

    log_probs = first
    for length in range(1, longest + 1):
        # The best continuations of each row, over all its open beams and the whole vocabulary
        width, vocabulary = open_scores.shape[1], log_probs.shape[-1]
        totals = log_probs.view(len(rows), width, vocabulary) + open_scores[:, :, None]
        scores, choice = totals.flatten(1).topk(candidates)
        parents, tokens = choice // vocabulary, choice % vocabulary
        sequences = _pick(open_tokens, parents)
        sequences[:, :, length - 1] = tokens
        stops = torch.isin(tokens, ends) | (limits[rows] == length)[:, None]

        # Those that end here and are among the best num_beams compete with the ones finished before
        ending = stops.clone()
        ending[:, num_beams:] = False
        final_scores = scores / length**length_penalty + ~ending * IMPOSSIBLE
        done_scores, order = torch.cat((done_scores, final_scores), 1).topk(num_beams)
        done_tokens = _pick(torch.cat((done_tokens, sequences), 1), order)
        is_done = torch.cat((is_done, ending), 1).gather(1, order)

        # The best of those that do not end stay open
        open_scores, order = (scores + stops * IMPOSSIBLE).topk(num_beams)
        open_tokens = _pick(sequences, order)
        origin = torch.arange(len(rows))[:, None] * width + parents.gather(1, order)

        # Rows that cannot improve leave
        to_beat = torch.where(is_done, done_scores[:, -1:], IMPOSSIBLE)
        improvable = (open_scores[:, :1] / length**length_penalty > to_beat).any(1)
        stay = improvable & (limits[rows] > length) & ~(early_stopping & is_done.all(1))
        for line in (~stay).nonzero().flatten().tolist():
            best = done_tokens[line, 0]
            results[int(rows[line])] = Hypothesis(best[best >= 0].tolist(), float(done_scores[line, 0]))
        if not stay.any():
            break
        if not stay.all():
            rows, origin, open_tokens, open_scores = rows[stay], origin[stay], open_tokens[stay], open_scores[stay]
            done_tokens, done_scores, is_done = done_tokens[stay], done_scores[stay], is_done[stay]
        log_probs = yield open_tokens[:, :, length - 1].flatten(), origin.flatten()
    return results


def _pick(sequences: Tensor, order: Tensor) -> Tensor:
    """`sequences[row, order[row]]` for every row: (rows, n, length) by (rows, m) gives a new (rows, m, length)."""
    return sequences.gather(1, order[:, :, None].expand(-1, -1, sequences.shape[-1]))
