"""Continuous batching: completions and label scores of many requests, one forward pass a step for all of them.

Every request is a row. A row first reads its prompt, in parts if it is long, and then a token a step; rows join and
leave between any two steps, because each has its own key-value memory. What a row gets does not depend on the others,
to the last bit, so a seed gives the same text on an idle machine and on a busy one (tested).
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
"""New tokens of all rows in one step: bounds how long a Stop, or another visitor, waits. Longer steps are no faster."""
STEP_ROWS = 32
STEP_SEEN = 500_000
"""New tokens of a row times all that they look at: bounds the memory of a step (6 MB of mask for SmolLM2)."""
STEP_LOGITS = 256
"""Positions of one step whose logits over the whole vocabulary are computed (50 MB for SmolLM2)."""


class Memory:
    """Keys and values of the tokens that a row has read."""

    def __init__(self, shape: Shape, room: int) -> None:
        """`room`: the most tokens it will hold. Pages are taken from the system as they are written."""
        self.tensor = torch.empty(shape.layers, 2, shape.kv_heads, room, shape.head_size)
        self.length = 0

    def recall(self, other: Tensor, length: int) -> None:
        """Begins with the first `length` tokens of another memory's tensor."""
        self.tensor[..., :length, :] = other[..., :length, :]
        self.length = length

    def copied(self) -> Tensor:
        """What it holds, without the room to spare."""
        return self.tensor[..., : self.length, :].clone()


@dataclass(frozen=True, slots=True)
class Part:
    """What a row feeds into one step."""

    ids: Sequence[int]
    positions: Sequence[int]
    kept: Sequence[int]
    """Which of the ids it wants logits of."""
    seen: Tensor | None = None
    """bool (ids, read + ids): what each may look at; None for all before it and itself."""


class Row(Protocol):
    memory: Memory

    def waiting(self) -> int:
        """Tokens it would feed now."""
        ...

    def wanted(self) -> int:
        """Logits it wants at the most."""
        ...

    def part(self, most: int) -> Part: ...

    def take(self, part: Part, logits: Tensor) -> Any | Again:
        """`logits`: float32 (kept, vocabulary). Returns its result, or `AGAIN` for another step."""
        ...


class Decoder:
    """The kernel of a decoder: one forward pass for all rows (`shared.engines.compute.Kernel`)."""

    def __init__(self, network: DecoderNetwork) -> None:
        self.network, self.shape = network, network.shape

    def __call__(self, rows: Sequence[Row]) -> list[Any]:
        # How a prompt is divided must not depend on who else is there (`room` bounds the sum), or its numbers would.
        parts = [row.part(max(1, min(STEP_TOKENS, STEP_SEEN // (row.memory.length + 1)))) for row in rows]
        logits = self.read([row.memory for row in rows], parts)
        outcomes: list[Any] = []
        for row, part, some in zip(rows, parts, logits, strict=True):
            row.memory.length += len(part.ids)
            try:
                outcomes.append(row.take(part, some))
            except Exception as error:
                outcomes.append(Failed(error))
        return outcomes

    def warm_up(self) -> None:
        """Has the kernels compiled, or brought from the compiler's cache on disk."""
        (logits,) = self.read([Memory(self.shape, 4)], [Part([0, 0], range(2), [1])])
        likeliest(logits[0].numpy())

    def room(self, rows: Sequence[Row], another: Row) -> bool:
        return (
            len(rows) < STEP_ROWS
            and sum(row.waiting() for row in rows) + another.waiting() <= STEP_TOKENS
            and sum(row.wanted() for row in rows) + another.wanted() <= STEP_LOGITS
        ) or (len(rows) < STEP_ROWS and another.waiting() == 1)

    def most_cores(self, rows: Sequence[Row]) -> int:
        return 1  # a token's products are too short to be shared out; the other cores are for another batch

    @torch.inference_mode()
    def read(self, memories: Sequence[Memory], parts: Sequence[Part]) -> list[Tensor]:
        """Writes the parts into the memories and gives the logits they want, float32 (kept, vocabulary) each."""
        kept, at = [], 0
        for part in parts:
            kept += [at + place for place in part.kept]
            at += len(part.ids)
        logits = torch.from_numpy(self.network.logits(self.states(memories, parts, kept)))
        return list(logits.split([len(part.kept) for part in parts]))

    @torch.inference_mode()
    def states(self, memories: Sequence[Memory], parts: Sequence[Part], kept: Sequence[int]) -> np.ndarray:
        """The last layer's normed states of the tokens at the places `kept` among all that are fed."""
        sequences = sequences_of(
            [position for part in parts for position in part.positions],
            [memory.tensor for memory in memories],
            [memory.length for memory in memories],
            [len(part.ids) for part in parts],
            [part.seen for part in parts],
        )
        ids = np.array([i for part in parts for i in part.ids], np.int64)
        return self.network.states(ids, sequences, np.array(kept, np.int64))


# -- rows ------------------------------------------------------------------------------------------


class Reading:
    """Reads a prompt, and gives the logits after its last token: float32 (vocabulary,)."""

    def __init__(self, memory: Memory, prompt: Sequence[int]) -> None:
        """The memory may hold the beginning of the prompt already, but not its last token."""
        self.memory = memory
        self.unread = list(prompt[memory.length :])

    def waiting(self) -> int:
        return len(self.unread)

    def wanted(self) -> int:
        return 1

    def part(self, most: int) -> Part:
        ids, read = self.unread[:most], self.memory.length
        kept = [len(ids) - 1] if len(ids) == len(self.unread) else []
        return Part(ids, range(read, read + len(ids)), kept)

    def take(self, part: Part, logits: Tensor) -> Any | Again:
        del self.unread[: len(part.ids)]
        return AGAIN if self.unread else self.read_all(logits[0])

    def read_all(self, logits: Tensor) -> Any | Again:
        return logits


class Completion(Reading):
    """Reads a prompt and then writes; each new token goes into `tokens` with its probability. Its result is None."""

    def __init__(
        self, memory: Memory, prompt: Sequence[int], sampling: Sampling, most_tokens: int, ends: frozenset[int]
    ) -> None:
        super().__init__(memory, prompt)
        self.tokens: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
        self.stopped = False
        """Set by a reader who wants no more."""
        self._sampling, self._left, self._ends = sampling, most_tokens, ends
        self._seen = list(prompt)
        # Of this request alone, so that the same seed gives the same text whatever else is running.
        self._randomness = torch.Generator().manual_seed(sampling.seed)

    def read_all(self, logits: Tensor) -> Again | None:
        if self.stopped:
            return None
        numbers = logits.numpy()
        best, rest = likeliest(numbers)
        plainly = not self._sampling.do_sample and self._sampling.repetition_penalty == 1.0
        token = best if plainly else draw(logits, self._sampling, self._seen, self._randomness)
        if token in self._ends:
            return None
        self._seen.append(token)
        self._left -= 1
        self.tokens.put((token, math.exp(numbers[token] - numbers[best] - rest)))
        self.unread = [token]
        return AGAIN if self._left else None


class Scoring(Reading):
    """Reads a prompt, and all labels after it side by side; gives the likelihood of each.

    The labels look at the prompt and at themselves, not at each other, so the prompt is read once for all of them.
    """

    def __init__(self, memory: Memory, prompt: Sequence[int], labels: Sequence[Sequence[int]]) -> None:
        super().__init__(memory, prompt)
        self._prompt, self._labels = len(prompt), labels
        self._tails = [(j, k) for j, label in enumerate(labels) for k in range(len(label) - 1)]

    @staticmethod
    def room(labels: Sequence[Sequence[int]]) -> int:
        """What the labels take in a memory, beside the prompt."""
        return sum(len(label) - 1 for label in labels)

    def waiting(self) -> int:
        return len(self.unread) + len(self._tails)

    def wanted(self) -> int:
        return 1 + len(self._tails)

    def part(self, most: int) -> Part:
        # The labels all come in the last part, be it a little longer for it.
        if len(self.unread) > most:
            return super().part(most)
        ids, read, tails = self.unread, self.memory.length, self._tails
        n, all_of_them = len(ids), len(ids) + len(tails)
        seen = torch.ones(all_of_them, read + all_of_them, dtype=torch.bool).tril(read)
        if tails:
            label, depth = torch.tensor(tails).T
            own = (label[:, None] == label) & (depth[:, None] >= depth)
            seen[n:, read + n :] = own
        return Part(
            [*ids, *(self._labels[j][k] for j, k in tails)],
            [*range(read, read + n), *(self._prompt + k for _, k in tails)],
            range(n - 1, all_of_them),
            seen,
        )

    def take(self, part: Part, logits: Tensor) -> list[Likelihood] | Again:
        if not len(part.kept):
            return super().take(part, logits)
        sure = logits.log_softmax(-1)
        totals = [float(sure[0, label[0]]) for label in self._labels]
        for place, (j, k) in enumerate(self._tails, 1):
            totals[j] += float(sure[place, self._labels[j][k + 1]])
        return [Likelihood(total, len(label)) for total, label in zip(totals, self._labels, strict=True)]
