"""The fast engine for Marian's tiny models: sentences of all visitors in one batch, joining and leaving as they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.catalog import Checkpoint
from shared.engines import AGAIN, Again, Compute, marian
from shared.engines.beam import Hypothesis, beam_search
from shared.engines.compiled import compiled
from shared.engines.int8_linear import ONE_CORE, processor_has_int8
from shared.engines.marian import BATCH_LINES, END, MarianTexts, read, target_limit
from shared.engines.marian_int8 import MarianInt8Network
from shared.events import Progress
from shared.settings import Settings

STEP_WORDS = 8
"""Target tokens of each sentence in one step: some ten milliseconds. Then others may join, and a Stop is seen."""
STEP_SENTENCES = 64
STEP_TOKENS = 1024
"""Source tokens read in one step."""


@dataclass(eq=False)
class Sentence:
    """A source on its way; greedy, the likeliest token at every place."""

    ids: list[int]
    limit: int
    source: Tensor | None = None
    """Keys and values of the source, once it was read."""
    cells: Tensor | None = None
    """(decoder layers, width)."""
    tokens: list[int] = field(default_factory=list)
    total: float = 0.0

    @property
    def ended(self) -> bool:
        return len(self.tokens) >= self.limit or self.tokens[-1:] == [END]


class GreedyDecoder:
    """The kernel: reads what is new, then writes some tokens of every sentence."""

    def __init__(self, network: MarianInt8Network) -> None:
        self.network = network
        self._encode, self._decode = compiled(network.encoder), compiled(network.decoder)
        self._output = compiled(network.output)

    @torch.inference_mode()
    def __call__(self, sentences: Sequence[Sentence]) -> list[Hypothesis | Again]:
        new = [sentence for sentence in sentences if sentence.source is None]
        for sentence, source in zip(new, self.sources([sentence.ids for sentence in new]), strict=True):
            sentence.source, sentence.cells = source, torch.zeros(self.network.layers, self.network.width)
        live = list(sentences)
        cells = torch.stack([sentence.cells for sentence in live if sentence.cells is not None], 1)
        for _ in range(STEP_WORDS):
            states = self.step([s.tokens[-1:] for s in live], [len(s.tokens) for s in live], cells, live)
            tokens, sure = self._output.best(states)
            for sentence, token, log_probability in zip(live, tokens.tolist(), sure.tolist(), strict=True):
                sentence.tokens.append(token)
                sentence.total += log_probability
            stay = [place for place, sentence in enumerate(live) if not sentence.ended]
            if len(stay) < len(live):
                live, cells = [live[place] for place in stay], cells[:, stay]
            if not live:
                break
        for place, sentence in enumerate(live):
            sentence.cells = cells[:, place].clone()
        return [Hypothesis(s.tokens, s.total / len(s.tokens)) if s.ended else AGAIN for s in sentences]

    def sources(self, sources: Sequence[Sequence[int]]) -> list[Tensor]:
        """Keys and values of each source, (decoder layers, 2, heads, source tokens, width / heads)."""
        if not sources:
            return []
        lengths = [len(source) for source in sources]
        places = torch.cat([torch.arange(length) for length in lengths])
        ids = torch.tensor([token for source in sources for token in source])
        found = self._encode(self.network.embedded(ids, places), lengths)
        return [
            one.view(one.shape[0], one.shape[1], 2, self.network.heads, -1).permute(0, 2, 3, 1, 4).contiguous()
            for one in found.split(lengths, 1)
        ]

    def step(
        self, newest: Sequence[Sequence[int]], places: Sequence[int], cells: Tensor, lines: Sequence[Any]
    ) -> Tensor:
        """States of each line's next token; `newest` is empty for a line that has none yet. Changes `cells`."""
        x = self.network.positions[torch.tensor(places)]
        written = [line for line, tokens in enumerate(newest) if len(tokens)]
        if written:
            ids = torch.tensor([newest[line][0] for line in written])
            x = x.index_add(0, torch.tensor(written), self.network.integers[ids].float() * self.network.scale)
        return self._decode(x, cells, [line.source for line in lines])

    def room(self, sentences: Sequence[Sentence], another: Sentence) -> bool:
        reading = sum(len(s.ids) for s in (*sentences, another) if s.source is None)
        return len(sentences) < STEP_SENTENCES and reading <= STEP_TOKENS

    def most_cores(self, sentences: Sequence[Sentence]) -> int:
        return ONE_CORE


class BatchedMarianTranslator(MarianTexts):
    """A `Translator` whose requests share their forward passes."""

    name = "torch-int8"

    def __init__(self, network: MarianInt8Network, vocabulary: Any, piece_tokens: int) -> None:
        super().__init__(vocabulary, piece_tokens)
        self.decoder = GreedyDecoder(network)
        self.nbytes = network.nbytes

    def decoded(self, sources: list[list[int]], num_beams: int, compute: Compute) -> list[Hypothesis]:
        if num_beams > 1:
            return self._beams(sources, num_beams, compute)
        return compute.together(self.decoder, [Sentence(ids, target_limit(len(ids))) for ids in sources])

    def _beams(self, sources: list[list[int]], num_beams: int, compute: Compute) -> list[Hypothesis]:
        found: list[Hypothesis] = []
        most = max(1, BATCH_LINES // num_beams)
        for start in range(0, len(sources), most):
            some = sources[start : start + most]
            lines = [Sentence(ids, 0, source) for ids, source in zip(some, self._read(some, compute), strict=True)]
            found += self._search(lines, num_beams, compute)
        return found

    def _read(self, sources: list[list[int]], compute: Compute) -> list[Tensor]:
        with torch.inference_mode():
            return compute(lambda: self.decoder.sources(sources))

    def _search(self, lines: list[Sentence], num_beams: int, compute: Compute) -> list[Hypothesis]:
        network, place = self.decoder.network, 0
        cells = torch.zeros(network.layers, len(lines), network.width)

        def step(newest: list[list[int]], state: Tensor, of: list[Sentence], at: int) -> Tensor:
            with torch.inference_mode():
                return network.output(self.decoder.step(newest, [at] * len(of), state, of)).log_softmax(1)

        def advance(tokens: Tensor, origin: Tensor) -> Tensor:
            nonlocal lines, cells, place
            lines, cells = [lines[line] for line in origin.tolist()], cells[:, origin]
            place += 1
            return compute(partial(step, [[token] for token in tokens.tolist()], cells, lines, place))

        limits = [target_limit(len(line.ids)) for line in lines]
        first = compute(partial(step, [[]] * len(lines), cells, lines, 0))
        return beam_search(first, advance, end_ids=[END], num_beams=num_beams, max_new_tokens=limits)


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most: those of the reference engine."""
    return marian.memory_bytes(checkpoint)


def why_not(settings: Settings) -> str:
    """Why the reference runs here instead; "" where this engine does."""
    if settings.engines == "reference":
        return "SUITE_ENGINES is set to reference"
    if not processor_has_int8():
        return "this processor does not multiply int8 in one instruction (VNNI)"
    return ""


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> MarianTexts:
    """Loads a folder with verified `model.bin` and `vocab.spm`. Raises as the reference engine does."""
    if why_not(settings):
        return marian.load(checkpoint, folder, settings, progress)
    file, vocabulary, piece_tokens = read(checkpoint, folder, progress)
    network = MarianInt8Network(file, longest=target_limit(piece_tokens), unknown=vocabulary.unk_id())
    engine = BatchedMarianTranslator(network, vocabulary, piece_tokens)
    for length in (2, 3):  # TorchScript looks at the first passes for what to improve
        engine.decoder([Sentence([1] * length, 4)])
    return engine
