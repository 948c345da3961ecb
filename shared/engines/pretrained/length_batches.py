"""Inputs in batches of similar length: little padding, and steps short enough to stop between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

BATCH_TOKENS = 4096
"""Tokens of one step of a small encoder (20 million parameters), padding included: about 100 ms on two cores."""

STEP_WORK = 35_000_000_000
"""Tokens times parameters of one step of any other: about half a second on one of two cores. Of DistilBERT's size (66
million), 530 tokens; 1,024 were no faster for each token."""

SHORTEST_STEP = 128
"""Tokens of one step of a large one, at least: reading the weights from memory takes as long as some 17 tokens."""


def batches_by_length(lengths: Sequence[int], batch_tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices in batches of similar length, so that little is spent on padding, and bounded in size."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def step_tokens(parameters: int) -> int:
    """Tokens of one step of an encoder of so many parameters, so that a step of a large one is not much longer."""
    return max(SHORTEST_STEP, min(BATCH_TOKENS, STEP_WORK // max(parameters, 1)))
