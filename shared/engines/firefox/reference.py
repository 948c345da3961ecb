"""Translates with Marian's "tiny" student models (Firefox Translations): the `Translator` engine.

Text in, text out: tokens, splitting of long sentences, batches, greedy and beam search. The forward pass is in
`network.py`, the file format in `file.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from torch import Tensor

from shared.checkpoints.catalog import Checkpoint
from shared.engines.compute import Compute, run_here
from shared.engines.firefox.file import MarianFile, read_marian
from shared.engines.firefox.network import Network
from shared.engines.pretrained.pieces import batches, split_long
from shared.engines.protocols import NoCache, Translated
from shared.engines.search.beam import Hypothesis, beam_search
from shared.engines.search.greedy import greedy_search
from shared.errors import WeightsCorrupt
from shared.events import Progress
from shared.settings import Settings

END = 0
"""Id of `</s>` in Marian's vocabularies."""
WORD_START = "▁"
"""SentencePiece's mark for a space, also a token of its own."""
MAX_LENGTH_FACTOR = 2.5
"""Target tokens per source token at most: `max-length-factor` of the models' own decoder configuration."""
LENGTH_MARGIN = 8
"""Target tokens allowed on top, for sources of a word or two."""
RELIABLE_TOKENS = 80
"""Longest piece whatever the catalog's context window. These models seem trained on sentences of up to about 100
tokens and lose what follows: of a list of 50 clauses (400 tokens) all came out in pieces of 96 tokens or fewer,
45 in pieces of 112, 41 of 128, and 22 of 256, followed by babble."""
BATCH_LINES, BATCH_TOKENS = 64, 2048
"""Sentences times beams, and padded source tokens, in one batch: its activations stay under about 90 MB."""


class FirefoxTranslator(NoCache):
    """A `Translator`: one language pair, sentence by sentence. Its subclasses translate the token ids."""

    def __init__(self, vocabulary: SentencePieceProcessor, piece_tokens: int) -> None:
        self.vocabulary = vocabulary
        self.piece_tokens = piece_tokens
        """Most tokens translated at once, the end token included; a longer sentence is split."""
        self.unreadable = {vocabulary.unk_id(), vocabulary.piece_to_id(WORD_START)}
        """Tokens that carry nothing of the text."""

    def translate(
        self,
        sentences: Sequence[str],
        num_beams: int = 1,
        compute: Compute = run_here,
        *,
        pair: tuple[str, str] | None = None,
    ) -> list[Translated]:
        """Translates in batches; the order is kept. `num_beams` 1 is greedy, and so is 0: its file names no number.

        A sentence of more than `piece_tokens` is translated piece by piece, and the pieces joined by spaces.
        """
        prepared = [self._prepare(sentence) for sentence in sentences]
        sources = [ids for sentence in prepared for ids in sentence.pieces]
        in_order = iter(self.best_outputs(sources, num_beams or 1, compute))
        return [self._join(sentence, list(islice(in_order, len(sentence.pieces)))) for sentence in prepared]

    def best_outputs(self, sources: list[list[int]], num_beams: int, compute: Compute) -> list[Hypothesis]:
        """The best target of each source, token ids with the end token."""
        raise NotImplementedError

    def _prepare(self, sentence: str) -> Prepared:
        """Leaves aside what the model cannot read: emoji and foreign scripts at either end, and text without words."""
        words = sentence.split()
        readable = [not self.unreadable.issuperset(self.vocabulary.encode(word)) for word in words]
        start = readable.index(True) if True in readable else len(words)
        end = len(words) - readable[::-1].index(True) if True in readable else start
        if not any(character.isalnum() for word in words[start:end] for character in word):
            start = end = len(words)
        pieces = split_long(words[start:end], self.piece_tokens - 1, self._token_counts)
        return Prepared(words[:start], [[*self.vocabulary.encode(piece), END] for piece in pieces], words[end:])

    def _token_counts(self, words: list[str]) -> list[int]:
        return [len(self.vocabulary.encode(word)) for word in words]  # for a list it would start threads each time

    def _join(self, sentence: Prepared, hypotheses: list[Hypothesis]) -> Translated:
        texts = [self.vocabulary.decode([i for i in found.tokens if i != END]) for found in hypotheses]
        new_tokens = sum(len(found.tokens) for found in hypotheses)
        return Translated(
            text=" ".join([*sentence.before, *(text.strip() for text in texts if text.strip()), *sentence.after]),
            input_tokens=sum(len(ids) for ids in sentence.pieces),
            new_tokens=new_tokens,
            log_probability=sum(found.score * len(found.tokens) for found in hypotheses) / max(new_tokens, 1),
        )


class TorchFirefoxTranslator(FirefoxTranslator):
    """The reference: float32 but for the embeddings, a batch for each request."""

    name = "torch-fp32"

    def __init__(self, network: Network, vocabulary: SentencePieceProcessor, piece_tokens: int) -> None:
        super().__init__(vocabulary, piece_tokens)
        self.network = network
        self.nbytes = network.nbytes

    def best_outputs(self, sources: list[list[int]], num_beams: int, compute: Compute) -> list[Hypothesis]:
        found: list[Hypothesis] = [Hypothesis([], 0.0)] * len(sources)
        for batch in batches([len(ids) for ids in sources], max(1, BATCH_LINES // num_beams), BATCH_TOKENS):
            hypotheses = self._decode([sources[place] for place in batch], num_beams, compute)
            for place, hypothesis in zip(batch, hypotheses, strict=True):
                found[place] = hypothesis
        return found

    def _decode(self, sources: list[list[int]], num_beams: int, compute: Compute) -> list[Hypothesis]:
        limits = [target_limit(len(source)) for source in sources]
        state = compute(lambda: self.network.encode(sources, num_beams))
        if num_beams == 1:

            def best(tokens: Tensor | None, origin: Tensor | None) -> tuple[Tensor, Tensor]:
                return compute(lambda: self.network.best(state, tokens, origin))

            found = greedy_search(best, end_ids=[END], max_new_tokens=limits)
            return [Hypothesis(tokens, total / len(tokens)) for tokens, total in found]

        def advance(tokens: Tensor, origin: Tensor) -> Tensor:
            return compute(lambda: self.network.step(state, tokens, origin))

        first = compute(lambda: self.network.step(state, None, None))
        return beam_search(first, advance, end_ids=[END], num_beams=num_beams, max_new_tokens=limits)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sentence on its way into the model."""

    before: list[str]
    """Words carried over as they are, in front of the translation."""
    pieces: list[list[int]]
    """Token ids, end token included, of what is translated; more than one if it is long."""
    after: list[str]
    """Words carried over behind it."""


def target_limit(source_tokens: int) -> int:
    """Most target tokens, so that a decoder that repeats itself stops."""
    return math.ceil(MAX_LENGTH_FACTOR * source_tokens) + LENGTH_MARGIN


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Upper bound of the bytes of weights in memory, known without reading a file.

    Every parameter as float32 and a twentieth for the table of positions; where the embeddings stay int8
    (processors with VNNI), about 60 % of it are used.
    """
    return checkpoint.parameters * 4 * 21 // 20


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchFirefoxTranslator:
    """Loads a folder with verified `model.bin` and `vocab.spm`.

    `settings` is part of every engine's contract; this one leaves threads to the cache and has one precision.
    """
    file, vocabulary, piece_tokens = read(checkpoint, folder, progress)
    network = Network(file, longest=target_limit(piece_tokens), unknown=vocabulary.unk_id())
    return TorchFirefoxTranslator(network, vocabulary, piece_tokens)


def read(checkpoint: Checkpoint, folder: Path, progress: Progress) -> tuple[MarianFile, SentencePieceProcessor, int]:
    """The weights, the vocabulary, and how many tokens are translated at once. Raises `WeightsCorrupt`."""
    model, spm = folder / "model.bin", folder / "vocab.spm"
    total = model.stat().st_size + spm.stat().st_size
    progress("reading weights", 0, total)
    try:
        vocabulary = SentencePieceProcessor(model_file=str(spm))
    except (OSError, RuntimeError) as error:
        raise WeightsCorrupt(f"{spm.name} is not a readable SentencePiece vocabulary") from error
    progress("reading weights", spm.stat().st_size, total)
    file = read_marian(model)
    progress("reading weights", total, total)
    return file, vocabulary, min(checkpoint.context_window, RELIABLE_TOKENS)
