"""How likely a causal LM finds each label after each prompt, in as few forward passes as possible.

Three stages, each computed once for all that share it: the front that all prompts have in common
(few-shot examples, instruction); what is left of each prompt; and the labels of more than one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch

from shared.engines.compute import Compute
from shared.engines.protocols import Likelihood

STEP_TOKENS = 2048
"""Tokens of one step, padding included: bounds its time."""
STEP_CACHED = 16_384
"""Rows times cached tokens of one step: bounds its memory (keys and values of SmolLM2-135M: 380 MB in bfloat16)."""
STEP_LOGITS = 512
"""Positions of one step whose logits over the whole vocabulary are kept (100 MB for SmolLM2)."""


class Decoder(Protocol):
    """The part of a causal LM that label scores need."""

    def prefill(self, prompt: Sequence[int], compute: Compute, cache: Any = None) -> tuple[torch.Tensor, Any]: ...

    def forward(
        self,
        ids: Sequence[Sequence[int]] | torch.Tensor,
        cache: Any,
        *,
        keep: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor: ...


def label_likelihoods(
    decoder: Decoder, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], compute: Compute
) -> list[list[Likelihood]]:
    """`result[i][j]`: log-likelihood of label tokens `labels[j]` after prompt tokens `prompts[i]`; none is empty."""
    # One token of each prompt is left over, since its logits are what we are after.
    shared = min(_common_length(prompts), min(map(len, prompts)) - 1)
    cache = decoder.prefill(prompts[0][:shared], compute)[1] if shared else None
    rests = [list(prompt[shared:]) for prompt in prompts]
    longest_label = max(map(len, labels))
    result: list[list[Likelihood]] = [[] for _ in prompts]
    for rows in _bounded(rests, shared + longest_label):
        some, front, read = [rests[i] for i in rows], cache, shared
        if len(some) == 1 and len(some[0]) > STEP_TOKENS // 4:
            # A long prompt by itself is read in parts, so that it can be stopped and others get their turns.
            front = decoder.prefill(some[0][:-1], compute, _copy(cache, torch.zeros(1, dtype=torch.long)))[1]
            read, some = shared + len(some[0]) - 1, [some[0][-1:]]
        sums, row_cache, mask, positions = compute(partial(_read_rests, decoder, front, read, some, labels))
        for chosen in _pairs(len(rows), labels, mask.shape[1] + longest_label):
            tails = compute(partial(_read_labels, decoder, row_cache, mask, positions, labels, chosen))
            for (row, label), tail in zip(chosen, tails, strict=True):
                sums[row][label] += tail
        for row, i in enumerate(rows):
            result[i] = [Likelihood(sums[row][j], len(label)) for j, label in enumerate(labels)]
    return result


def _read_rests(
    decoder: Decoder, cache: Any, shared: int, rests: Sequence[list[int]], labels: Sequence[Sequence[int]]
) -> tuple[list[list[float]], Any, torch.Tensor, torch.Tensor]:
    """Reads what is left of each prompt.

    Returns the log-probability of each label's first token, shape (rows, labels), the key-value cache with a row a
    prompt, its attention mask (rows, cached tokens) and the number of tokens of each prompt.
    """
    ids, mask = _padded(rests)
    lengths = mask.sum(1)
    with torch.inference_mode():
        rows = _copy(cache, torch.zeros(len(rests), dtype=torch.long))
        full_mask = torch.cat([mask.new_ones(len(rests), shared), mask], dim=1)
        positions = shared + torch.arange(ids.shape[1]).expand(len(rests), -1)
        logits = decoder.forward(
            ids, rows, keep=(lengths - 1)[:, None], attention_mask=full_mask, position_ids=positions
        )
        first_tokens = torch.tensor([label[0] for label in labels])
        firsts = logits[:, 0].log_softmax(-1)[:, first_tokens]
    return firsts.tolist(), rows, full_mask, shared + lengths


def _read_labels(
    decoder: Decoder,
    cache: Any,
    mask: torch.Tensor,
    lengths: torch.Tensor,
    labels: Sequence[Sequence[int]],
    chosen: Sequence[tuple[int, int]],
) -> list[float]:
    """Log-probability of all but the first token of each (row, label) in `chosen`."""
    rows = torch.tensor([row for row, _ in chosen])
    ids, label_mask = _padded([list(labels[j][:-1]) for _, j in chosen])
    targets, _ = _padded([list(labels[j][1:]) for _, j in chosen])
    steps = torch.arange(ids.shape[1]).expand(len(chosen), -1)
    with torch.inference_mode():
        logits = decoder.forward(
            ids,
            _copy(cache, rows),
            keep=steps,
            attention_mask=torch.cat([mask[rows], label_mask], dim=1),
            position_ids=lengths[rows][:, None] + steps,
        )
        scores = logits.gather(2, targets[..., None])[..., 0] - logits.logsumexp(-1)
        return (scores * label_mask).sum(1).tolist()


def _copy(cache: Any, rows: torch.Tensor) -> Any:
    """A cache of its own with the given rows of another, which stays as it is."""
    from transformers import DynamicCache

    copy = DynamicCache()
    if cache is not None:
        for index, layer in enumerate(cache.layers):
            copy.update(layer.keys.index_select(0, rows), layer.values.index_select(0, rows), index)
    return copy


def _common_length(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with. The first and the last in order differ soonest."""
    first, last = min(map(list, rows)), max(map(list, rows))
    shortest = min(len(first), len(last))
    return next((i for i in range(shortest) if first[i] != last[i]), shortest)


def _padded(rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded with 0 on the right, and the mask that tells which are real; both (rows, longest)."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def _bounded(rests: Sequence[list[int]], cached: int) -> list[list[int]]:
    """Indices of prompts in batches of similar length, bounded in computed and in cached tokens."""
    batches: list[list[int]] = []
    for i in sorted(range(len(rests)), key=lambda i: len(rests[i])):
        size = len(batches[-1]) + 1 if batches else 1
        if (
            batches
            and size <= STEP_LOGITS
            and size * len(rests[i]) <= STEP_TOKENS
            and size * (cached + len(rests[i])) <= STEP_CACHED
        ):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _pairs(rows: int, labels: Sequence[Sequence[int]], cached: int) -> list[list[tuple[int, int]]]:
    """(row, label) for every label of more than one token, in batches bounded in cached tokens."""
    pairs = [(row, j) for row in range(rows) for j, label in enumerate(labels) if len(label) > 1]
    longest = max(map(len, labels))
    size = max(1, min(STEP_CACHED // cached, STEP_LOGITS // longest))
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]
