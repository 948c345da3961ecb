"""The fast engine for Marian's tiny models: sentences of all visitors in one batch, joining and leaving as they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import fsum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.checkpoints.catalog import Checkpoint
from shared.engines.compute import AGAIN, Again, Compute
from shared.engines.firefox import reference
from shared.engines.firefox.batched_network import BatchedNetwork, Line
from shared.engines.firefox.reference import BATCH_LINES, END, FirefoxTranslator, read, target_limit
from shared.engines.packed.kernel_choice import why_not
from shared.engines.search.beam import Hypothesis, beam_search
from shared.events import Progress
from shared.settings import Settings

__all__ = ["load", "memory_bytes", "prepare", "why_not"]

STEP_WORDS, FEWEST_WORDS = 32, 8
"""Target tokens of all sentences in one step, and of each at least: some ten milliseconds. Then others may join, and a
Stop is seen."""
STEP_SENTENCES = 64
STEP_TOKENS = 1024
"""Source tokens read in one step."""


@dataclass(eq=False)
class Sentence:
    """A source and its greedy output so far: the likeliest token at every position."""

    ids: list[int]
    limit: int
    line: Line | None = None
    """Its target, once it was read."""
    sure: list[float] = field(default_factory=list)
    """The log-probabilities of its tokens."""

    @property
    def tokens(self) -> list[int]:
        return self.line.tokens if self.line else []

    @property
    def ended(self) -> bool:
        return len(self.tokens) >= self.limit or self.tokens[-1:] == [END]


class GreedyDecoder:
    """The kernel: reads what is new, then writes some tokens of every sentence."""

    def __init__(self, network: BatchedNetwork) -> None:
        self.network = network

    def __call__(self, sentences: Sequence[Sentence]) -> list[Hypothesis | Again]:
        new = [sentence for sentence in sentences if sentence.line is None]
        for sentence, line in zip(new, self.network.read([sentence.ids for sentence in new]), strict=True):
            sentence.line = line
        lines = [sentence.line for sentence in sentences if sentence.line is not None]
        words = max(FEWEST_WORDS, STEP_WORDS // len(lines))
        sure = self.network.write(lines, [sentence.limit for sentence in sentences], END, words)
        for sentence, found in zip(sentences, sure.tolist(), strict=True):
            sentence.sure += found
        # However the words came in steps, their sum is the same to the last bit; 0 stands behind the end.
        return [Hypothesis(s.tokens, fsum(s.sure) / len(s.tokens)) if s.ended else AGAIN for s in sentences]

    def can_join(self, batch: Sequence[Sentence], item: Sentence) -> bool:
        reading = sum(len(s.ids) for s in (*batch, item) if s.line is None)
        return len(batch) < STEP_SENTENCES and reading <= STEP_TOKENS

    def most_cores(self, sentences: Sequence[Sentence]) -> int:
        return 1  # its products are too short to be shared out


class BatchedFirefoxTranslator(FirefoxTranslator):
    """A `Translator` whose requests share their forward passes."""

    name = "compiled-int8"

    def __init__(self, network: BatchedNetwork, vocabulary: Any, piece_tokens: int) -> None:
        super().__init__(vocabulary, piece_tokens)
        self.decoder = GreedyDecoder(network)
        self.nbytes = network.nbytes

    def best_outputs(self, sources: list[list[int]], num_beams: int, compute: Compute) -> list[Hypothesis]:
        if num_beams > 1:
            return self._beams(sources, num_beams, compute)
        return compute.map(self.decoder, [Sentence(ids, target_limit(len(ids))) for ids in sources])

    def _beams(self, sources: list[list[int]], num_beams: int, compute: Compute) -> list[Hypothesis]:
        found: list[Hypothesis] = []
        most = max(1, BATCH_LINES // num_beams)
        for start in range(0, len(sources), most):
            some = sources[start : start + most]
            found += self._search(some, compute(partial(self.decoder.network.read, some)), num_beams, compute)
        return found

    def _search(
        self, sources: list[list[int]], lines: list[Line], num_beams: int, compute: Compute
    ) -> list[Hypothesis]:
        def step(of: list[Line]) -> Tensor:
            return torch.from_numpy(self.decoder.network.logits(of)).log_softmax(1)

        def advance(tokens: Tensor, origin: Tensor) -> Tensor:
            nonlocal lines
            # A line may go on in several ways: each has cells of its own, and all the same source.
            lines = [
                Line(lines[line].source, lines[line].cells, [*lines[line].tokens, token])
                for line, token in zip(origin.tolist(), tokens.tolist(), strict=True)
            ]
            return compute(partial(step, lines))

        limits = [target_limit(len(ids)) for ids in sources]
        first = compute(partial(step, lines))
        return beam_search(first, advance, end_ids=[END], num_beams=num_beams, max_new_tokens=limits)


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most: those of the reference engine."""
    return reference.memory_bytes(checkpoint)


def prepare(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """The folder itself; the kernels are compiled, so that the first click need not wait for it."""
    load(checkpoint, folder, settings, progress)
    return folder


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> FirefoxTranslator:
    """Loads a folder with verified `model.bin` and `vocab.spm`. Raises as the reference engine does."""
    if why_not(settings):
        return reference.load(checkpoint, folder, settings, progress)
    file, vocabulary, piece_tokens = read(checkpoint, folder, progress)
    network = BatchedNetwork(file, longest=target_limit(piece_tokens), unknown=vocabulary.unk_id())
    engine = BatchedFirefoxTranslator(network, vocabulary, piece_tokens)
    progress("compiling for this processor, once", 0, 0)
    engine.decoder([Sentence([END], 1)])
    return engine
