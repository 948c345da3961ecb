"""Continuous batching: completions and label scores of many requests, one forward pass a step for all of them.

Every request is a sequence. It first reads its prompt, in chunks if it is long, and then a token a step. Sequences join
and leave between any two steps, because each has its own key-value cache. What a sequence gets does not depend on the
others, to the last bit, so a seed gives the same text on an idle machine and on a busy one (tested).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from shared.engines.compute import AGAIN, Again, Failed
from shared.engines.decoders.network import DecoderNetwork, Shape, sequences_of
from shared.engines.kernels.likeliest import likeliest
from shared.engines.protocols import Likelihood, Sampling
from shared.engines.search.sampling import draw

STEP_TOKENS = 128
"""New tokens of all sequences in one step: the longest time that a Stop, or another visitor, waits. Longer steps are no
faster."""
STEP_SEQUENCES = 32
STEP_MASK = 500_000
"""Elements of a sequence's attention mask in one step (6 MB for SmolLM2)."""
STEP_LOGITS = 256
"""Tokens of one step whose logits over the whole vocabulary are computed (50 MB for SmolLM2)."""


class KeyValueCache:
    """Keys and values of the tokens that a sequence has read."""

    def __init__(self, shape: Shape, capacity: int) -> None:
        """`capacity`: the most tokens it can have. The system provides memory pages only as they are written."""
        self.tensor = torch.empty(shape.layers, 2, shape.kv_heads, capacity, shape.head_size)
        self.length = 0

    def load_prefix(self, other: Tensor, length: int) -> None:
        """Starts with the first `length` tokens of another cache's tensor."""
        self.tensor[..., :length, :] = other[..., :length, :]
        self.length = length

    def trimmed(self) -> Tensor:
        """A copy of its content, without unused capacity."""
        return self.tensor[..., : self.length, :].clone()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The tokens that a sequence feeds into one step."""

    ids: Sequence[int]
    positions: Sequence[int]
    logit_positions: Sequence[int]
    """Indices into `ids` of the tokens whose logits it wants."""
    attention_mask: Tensor | None = None
    """bool (ids, cached + ids): the tokens that each may look at; None for all before it and itself."""


class TokenSequence(Protocol):
    """One request's tokens: an item of the kernel."""

    cache: KeyValueCache

    def pending(self) -> int:
        """Tokens it would feed now."""
        ...

    def max_logits(self) -> int:
        """The most tokens of a step whose logits it wants."""
        ...

    def next_chunk(self, max_tokens: int) -> Chunk: ...

    def consume(self, chunk: Chunk, logits: Tensor) -> Any | Again:
        """`logits`: float32 (logit_positions, vocabulary). Returns the result, or `AGAIN` for another step."""
        ...


class Decoder:
    """The kernel of a decoder: one forward pass for all sequences (`shared.engines.compute.Kernel`)."""

    def __init__(self, network: DecoderNetwork) -> None:
        self.network, self.shape = network, network.shape

    def __call__(self, sequences: Sequence[TokenSequence]) -> list[Any]:
        # A prompt is divided the same way whatever else is in the batch (`can_join` bounds the sum of tokens), because
        # its numbers depend on the division.
        chunks = [s.next_chunk(max(1, min(STEP_TOKENS, STEP_MASK // (s.cache.length + 1)))) for s in sequences]
        logits = self.forward([sequence.cache for sequence in sequences], chunks)
        outcomes: list[Any] = []
        for sequence, chunk, some in zip(sequences, chunks, logits, strict=True):
            sequence.cache.length += len(chunk.ids)
            try:
                outcomes.append(sequence.consume(chunk, some))
            except Exception as error:
                outcomes.append(Failed(error))
        return outcomes

    def warm_up(self) -> None:
        """Compiles the kernels, or loads them from the compiler's cache on disk."""
        (logits,) = self.forward([KeyValueCache(self.shape, 4)], [Chunk([0, 0], range(2), [1])])
        likeliest(logits[0].numpy())

    def can_join(self, batch: Sequence[TokenSequence], item: TokenSequence) -> bool:
        return len(batch) < STEP_SEQUENCES and (
            item.pending() == 1
            or (
                sum(sequence.pending() for sequence in batch) + item.pending() <= STEP_TOKENS
                and sum(sequence.max_logits() for sequence in batch) + item.max_logits() <= STEP_LOGITS
            )
        )

    def most_cores(self, sequences: Sequence[TokenSequence]) -> int:
        return 1  # a token's products are too short to be shared out; the other cores are for another batch

    @torch.inference_mode()
    def forward(self, caches: Sequence[KeyValueCache], chunks: Sequence[Chunk]) -> list[Tensor]:
        """Appends the chunks to the caches; the logits that each wants, float32 (logit_positions, vocabulary)."""
        logit_positions, start = [], 0
        for chunk in chunks:
            logit_positions += [start + index for index in chunk.logit_positions]
            start += len(chunk.ids)
        logits = torch.from_numpy(self.network.logits(self.states(caches, chunks, logit_positions)))
        return list(logits.split([len(chunk.logit_positions) for chunk in chunks]))

    @torch.inference_mode()
    def states(
        self, caches: Sequence[KeyValueCache], chunks: Sequence[Chunk], logit_positions: Sequence[int]
    ) -> np.ndarray:
        """The last layer's normed states of the tokens at `logit_positions`, which count through all chunks."""
        sequences = sequences_of(
            [position for chunk in chunks for position in chunk.positions],
            [cache.tensor for cache in caches],
            [cache.length for cache in caches],
            [len(chunk.ids) for chunk in chunks],
            [chunk.attention_mask for chunk in chunks],
        )
        ids = np.array([i for chunk in chunks for i in chunk.ids], np.int64)
        return self.network.states(ids, sequences, np.array(logit_positions, np.int64))


# -- sequences ---------------------------------------------------------------------------------------


class Prefill:
    """Reads a prompt. Its result is the logits after the prompt's last token: float32 (vocabulary,)."""

    def __init__(self, cache: KeyValueCache, prompt: Sequence[int]) -> None:
        """The cache may have the beginning of the prompt already, but not its last token."""
        self.cache = cache
        self.unread = list(prompt[cache.length :])

    def pending(self) -> int:
        return len(self.unread)

    def max_logits(self) -> int:
        return 1

    def next_chunk(self, max_tokens: int) -> Chunk:
        ids, cached = self.unread[:max_tokens], self.cache.length
        logit_positions = [len(ids) - 1] if len(ids) == len(self.unread) else []
        return Chunk(ids, range(cached, cached + len(ids)), logit_positions)

    def consume(self, chunk: Chunk, logits: Tensor) -> Any | Again:
        del self.unread[: len(chunk.ids)]
        return AGAIN if self.unread else self.on_logits(logits[0])

    def on_logits(self, logits: Tensor) -> Any | Again:
        """Called when no token is unread, with the last one's logits, float32 (vocabulary,)."""
        return logits


class Completion(Prefill):
    """Reads a prompt and then writes; each new token goes into `tokens` with its probability. Its result is None."""

    def __init__(
        self, cache: KeyValueCache, prompt: Sequence[int], sampling: Sampling, max_tokens: int, ends: frozenset[int]
    ) -> None:
        super().__init__(cache, prompt)
        self.tokens: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
        self.stopped = False
        """Set by a reader who wants no more."""
        self._sampling, self._left, self._ends = sampling, max_tokens, ends
        self._ids = list(prompt)
        # Of this request alone, so that the same seed gives the same text whatever else is running.
        self._randomness = torch.Generator().manual_seed(sampling.seed)

    def on_logits(self, logits: Tensor) -> Again | None:
        if self.stopped:
            return None
        numbers = logits.numpy()
        best, rest = likeliest(numbers)
        greedy = not self._sampling.do_sample and self._sampling.repetition_penalty == 1.0
        token = best if greedy else draw(logits, self._sampling, self._ids, self._randomness)
        if token in self._ends:
            return None
        self._ids.append(token)
        self._left -= 1
        self.tokens.put((token, math.exp(numbers[token] - numbers[best] - rest)))
        self.unread = [token]
        return AGAIN if self._left else None


class LabelScoring(Prefill):
    """Reads a prompt, and all labels after it side by side; gives the likelihood of each.

    The labels look at the prompt and at themselves, not at each other, so the prompt is read once for all of them.
    """

    def __init__(self, cache: KeyValueCache, prompt: Sequence[int], labels: Sequence[Sequence[int]]) -> None:
        super().__init__(cache, prompt)
        self._prompt, self._labels = len(prompt), labels
        self._tails = [(j, k) for j, label in enumerate(labels) for k in range(len(label) - 1)]

    @staticmethod
    def tokens_of(labels: Sequence[Sequence[int]]) -> int:
        """Tokens that the labels take in a cache, beside the prompt."""
        return sum(len(label) - 1 for label in labels)

    def pending(self) -> int:
        return len(self.unread) + len(self._tails)

    def max_logits(self) -> int:
        return 1 + len(self._tails)

    def next_chunk(self, max_tokens: int) -> Chunk:
        # All labels are in the last chunk, even if that makes it longer than `max_tokens`.
        if len(self.unread) > max_tokens:
            return super().next_chunk(max_tokens)
        ids, cached, tails = self.unread, self.cache.length, self._tails
        n, total = len(ids), len(ids) + len(tails)
        mask = torch.ones(total, cached + total, dtype=torch.bool).tril(cached)
        if tails:
            label, depth = torch.tensor(tails).T
            mask[n:, cached + n :] = (label[:, None] == label) & (depth[:, None] >= depth)
        return Chunk(
            [*ids, *(self._labels[j][k] for j, k in tails)],
            [*range(cached, cached + n), *(self._prompt + k for _, k in tails)],
            range(n - 1, total),
            mask,
        )

    def consume(self, chunk: Chunk, logits: Tensor) -> list[Likelihood] | Again:
        if not len(chunk.logit_positions):
            return super().consume(chunk, logits)
        log_probabilities = logits.log_softmax(-1)
        totals = [float(log_probabilities[0, label[0]]) for label in self._labels]
        for index, (j, k) in enumerate(self._tails, 1):
            totals[j] += float(log_probabilities[index, self._labels[j][k + 1]])
        return [Likelihood(total, len(label)) for total, label in zip(totals, self._labels, strict=True)]
