"""Continuous batching of encoder-decoders: texts of many requests, one forward pass a step for all of them.

Every text is an item of the kernel. In its first step its source is read, and in each step every line of it (one or,
with beams, several) gets a token. Texts join and leave between any two steps, because each has its own key-value
caches. What a text gets does not depend on the others, to the last bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.engines.compute import AGAIN, Again, Failed
from shared.engines.protocols import Sampling
from shared.engines.search.beam import Steps, beam_steps
from shared.engines.seq2seq.network import Line, Seq2SeqNetwork
from shared.engines.seq2seq.reference_decoding import Written, draw, of_beams
from shared.engines.seq2seq.rules import Rules

STEP_LINES = 32
"""Lines of all texts in one step: small100's scores for them, over 128,000 tokens, take 16 MB."""
STEP_TOKENS = 512
"""Source tokens read in one step, unless one source has more: some tenths of a second with T5-small."""


class Text(ABC):
    """The output for one source; to `Rules`, the `Lines` of a batch."""

    def __init__(self, source: Sequence[int], limit: int, rules: Rules, first: int | None = None) -> None:
        """`limit`: most new tokens, end token included, at least 1; `first` is forced as the first."""
        self.source, self.rules, self.limit = source, rules, limit
        self.first = rules.first if first is None else first
        self.lines: list[Line] = []
        self.written, self.limits = torch.full((1, 1), rules.start), torch.tensor([limit])

    @property
    def max_lines(self) -> int:
        """The most lines it will have."""
        return 1

    def start(self, source: np.ndarray, network: Seq2SeqNetwork) -> None:
        """Starts a line; `source` has the keys and values of its source."""
        self.lines = [Line(source, network.new_cache(self.limit), self.rules.start)]

    @abstractmethod
    def consume(self, logits: Tensor) -> Any | Again:
        """`logits`: float32 (lines, vocabulary). Returns its result, or `AGAIN` for another step."""

    def _continue_with(self, token: int) -> Again:
        """Appends a token to the only line."""
        self.written = torch.cat((self.written, torch.tensor([[token]])), 1)
        self.lines[0].newest = token
        return AGAIN


class Writer:
    """The kernel of an encoder-decoder: reads new sources, then writes a token of every line."""

    def __init__(self, network: Seq2SeqNetwork) -> None:
        self.network = network

    @torch.inference_mode()
    def __call__(self, texts: Sequence[Text]) -> list[Any]:
        new = [text for text in texts if not text.lines]
        for text, source in zip(new, self.network.read([text.source for text in new]), strict=True):
            text.start(source, self.network)
        logits = self.network.write([line for text in texts for line in text.lines])
        outcomes: list[Any] = []
        for text, some in zip(texts, logits.split([len(text.lines) for text in texts]), strict=True):
            try:
                outcomes.append(text.consume(some))
            except Exception as error:
                outcomes.append(Failed(error))
        return outcomes

    def warm_up(self, rules: Rules) -> None:
        """Compiles the kernels, or loads them from the compiler's cache on disk."""
        self([Greedy([0], 1, rules)])

    def can_join(self, batch: Sequence[Text], item: Text) -> bool:
        if sum(text.max_lines for text in batch) + item.max_lines > STEP_LINES:
            return False
        reading = sum(len(text.source) for text in batch if not text.lines)
        return bool(item.lines) or not reading or reading + len(item.source) <= STEP_TOKENS

    def most_cores(self, texts: Sequence[Text]) -> int:
        return 1  # a token's products are too short to be shared out; the other cores are for another batch


# -- texts -----------------------------------------------------------------------------------------


class Greedy(Text):
    """The likeliest token at every position. Its result is `Written`."""

    def __init__(self, source: Sequence[int], limit: int, rules: Rules, first: int | None = None) -> None:
        super().__init__(source, limit, rules, first)
        self._tokens: list[int] = []
        self._total = 0.0

    def consume(self, logits: Tensor) -> Written | Again:
        log_probability, (token,) = self.rules.log_probabilities(logits, self).max(-1)
        self._tokens.append(int(token))
        self._total += float(log_probability)
        if self._tokens[-1] in self.rules.ends or len(self._tokens) == self.limit:
            return Written(self._tokens, self._total)
        return self._continue_with(self._tokens[-1])


class Drawn(Text):
    """Tokens drawn by the request's sampling; each goes into `tokens` with its probability. Its result is None."""

    def __init__(self, source: Sequence[int], limit: int, rules: Rules, sampling: Sampling) -> None:
        super().__init__(source, limit, rules)
        self.tokens: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
        self.stopped = False
        """Set by a reader who wants no more."""
        self._sampling, self._left = sampling, limit
        # Of this request alone, so that the same seed gives the same text whatever else is running.
        self._randomness = torch.Generator().manual_seed(sampling.seed)

    def consume(self, logits: Tensor) -> Again | None:
        if self.stopped:
            return None
        token, probability = draw(logits, self.rules, self, self._sampling, self._randomness)
        if token in self.rules.ends:
            return None
        self.tokens.put((token, probability))
        self._left -= 1
        return self._continue_with(token) if self._left else None


class Beams(Text):
    """Beam search. Its result is `Written`."""

    def __init__(
        self, source: Sequence[int], limit: int, rules: Rules, num_beams: int, first: int | None = None
    ) -> None:
        super().__init__(source, limit, rules, first)
        self._num_beams = num_beams
        self._steps: Steps | None = None

    @property
    def max_lines(self) -> int:
        return self._num_beams

    def consume(self, logits: Tensor) -> Written | Again:
        log_probabilities = self.rules.log_probabilities(logits, self)
        try:
            if self._steps is None:
                self._steps = self._search(log_probabilities)
                tokens, origin = next(self._steps)
            else:
                tokens, origin = self._steps.send(log_probabilities)
        except StopIteration as end:
            return of_beams(end.value[0], self.rules)
        self.written = torch.cat((self.written[origin], tokens[:, None]), 1)
        self.limits = self.limits[origin]
        self._continue(tokens.tolist(), origin.tolist())
        return AGAIN

    def _search(self, first: Tensor) -> Steps:
        return beam_steps(
            first,
            end_ids=self.rules.ends,
            num_beams=self._num_beams,
            max_new_tokens=[self.limit],
            length_penalty=self.rules.length_penalty,
            early_stopping=self.rules.early_stopping,
        )

    def _continue(self, tokens: Sequence[int], origin: Sequence[int]) -> None:
        """A line may continue in several ways, and each needs its own cache; that of a line which ends is reused."""
        before = self.lines
        spare = [line.cache for place, line in enumerate(before) if place not in origin]
        taken: set[int] = set()
        self.lines = []
        for token, place in zip(tokens, origin, strict=True):
            line = before[place]
            cache = line.cache
            if place in taken:
                cache = spare.pop() if spare else np.empty_like(cache)
                cache[..., : line.length, :] = line.cache[..., : line.length, :]
            taken.add(place)
            self.lines.append(Line(line.source, cache, token, line.length))
