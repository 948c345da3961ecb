"""The base of all engines for encoder-decoders: from sentences to sources, and from outputs to texts."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import islice
from typing import Self

from shared.checkpoints.catalog import Checkpoint, Pair
from shared.engines.compute import Compute, run_here
from shared.engines.pretrained.pieces import split_long
from shared.engines.protocols import NoCache, Translated
from shared.engines.seq2seq.reference_decoding import Sources, Written
from shared.engines.seq2seq.rules import Rules, translation_task
from shared.engines.seq2seq.tokenizer import Tokenizer
from shared.errors import InvalidInput, UnknownCheckpoint

MAX_LENGTH_FACTOR, LENGTH_MARGIN = 3.0, 20
"""Target tokens per source token at most, and on top: generous, since scripts that a vocabulary of a hundred languages
knows less well take more tokens than English; it only has to stop a decoder that repeats itself."""


class Translating(NoCache, ABC):
    """Text in and out of an encoder-decoder."""

    def __init__(self, tokenizer: Tokenizer, rules: Rules, checkpoint: Checkpoint) -> None:
        self.tokenizer, self.rules, self.checkpoint = tokenizer, rules, checkpoint
        self.context_window = checkpoint.context_window

    @abstractmethod
    def best_outputs(self, sources: Sources, num_beams: int, compute: Compute) -> list[Written]:
        """The best output for each source, greedy (`num_beams` 1) or by beam search."""

    # -- what the checkpoint says itself -------------------------------------------------------

    @property
    def num_beams(self) -> int:
        return self.rules.num_beams

    def for_task(self, task: str) -> Self:
        """Itself, writing as its config.json says that it does for a task. Raises as `Rules.for_task` does."""
        asked = copy.copy(self)  # one more way to ask the same network
        asked.rules = self.rules.for_task(task)
        return asked

    # -- text and tokens -----------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        """Token ids as the encoder reads them, end token included; of M2M100 and small100 without a language code."""
        return self.tokenizer.encode(text)

    def detokenize(self, ids: Sequence[int], *, special_tokens: bool = False) -> str:
        return self.tokenizer.decode(ids, special_tokens=special_tokens)

    # -- one source ----------------------------------------------------------------------------

    def beam_search(
        self, source: Sequence[int], max_new_tokens: int, num_beams: int, compute: Compute = run_here
    ) -> list[int]:
        """Token ids of the best output, end token excluded. Raises `InvalidInput` as `generate` does."""
        self._check(source)
        limits = [min(max_new_tokens, self.context_window)]
        (best,) = self.best_outputs(Sources([source], limits), num_beams, compute)
        return [token for token in best.tokens if token not in self.rules.ends]

    def _check(self, source: Sequence[int]) -> None:
        if not source:
            raise InvalidInput("is empty", field="text")
        if len(source) > self.context_window:
            raise InvalidInput(
                f"has {len(source)} tokens, and {self.checkpoint.id} reads at most {self.context_window}; shorten it",
                field="text",
            )

    # -- many sentences ------------------------------------------------------------------------

    def translate(
        self,
        sentences: Sequence[str],
        num_beams: int = 1,
        compute: Compute = run_here,
        *,
        pair: Pair | None = None,
    ) -> list[Translated]:
        """Translates in batches; the order is kept. `num_beams` 1 is greedy, 0 as the checkpoint prefers for the pair.

        A sentence longer than the context window is translated piece by piece, and the pieces joined by spaces. One
        in which the model can read nothing (a blank line, `...`, a script it does not know) stays as it is.
        Raises `UnknownCheckpoint` (field `tgt_lang`) for a pair that the checkpoint does not translate.
        """
        pair = self._pair(pair)
        asked = self.for_task(translation_task(pair))
        prepared = [self._prepare(sentence, pair) for sentence in sentences]
        sources = [ids for pieces in prepared for ids in pieces]
        limits = [min(target_limit(len(ids)), self.context_window) for ids in sources]
        beams = num_beams or asked.num_beams
        wanted = Sources(sources, limits, self.tokenizer.first_token(pair))
        found = iter(asked.best_outputs(wanted, beams, compute))
        return [
            self._join(sentence, pieces, list(islice(found, len(pieces))))
            for sentence, pieces in zip(sentences, prepared, strict=True)
        ]

    def _pair(self, pair: Pair | None) -> Pair:
        """The pair asked for, or the only one there is."""
        checkpoint = self.checkpoint
        if pair is None and len(checkpoint.pairs) == 1 and not checkpoint.any_pair:
            return checkpoint.pairs[0]
        if pair is not None and checkpoint.translates(pair):
            return pair
        if checkpoint.any_pair:
            offered = f"it translates between any two of {', '.join(checkpoint.languages)}"
        else:
            pairs = ", ".join(f"{source} to {target}" for source, target in checkpoint.pairs)
            offered = f"it translates {pairs}" if pairs else "it does not translate"
        asked = f"does not translate from {pair[0]} to {pair[1]}" if pair else "must be told the languages"
        raise UnknownCheckpoint(f"{checkpoint.id} {asked}; {offered}", field="tgt_lang")

    def _prepare(self, sentence: str, pair: Pair) -> list[list[int]]:
        """Source tokens of a sentence: in one piece if it fits, in several if not, in none if nothing is readable."""
        readable = any(map(str.isalnum, sentence)) and not self.tokenizer.unreadable.issuperset(
            self.tokenizer.words(sentence)
        )
        if not readable:
            return []
        prefix = self.checkpoint.prefixes.get("-".join(pair), "")
        whole = self.tokenizer.encode(prefix + sentence, pair)
        if len(whole) <= self.context_window:
            return [whole]
        room = self.context_window - len(self.tokenizer.encode(prefix, pair))
        parts = split_long(sentence.split(), room, lambda words: [len(self.tokenizer.words(word)) for word in words])
        return [self.tokenizer.encode(prefix + part, pair) for part in parts]

    def _join(self, sentence: str, pieces: list[list[int]], outputs: list[Written]) -> Translated:
        new_tokens = sum(len(output.tokens) for output in outputs)
        texts = [self.detokenize(output.tokens).strip() for output in outputs]
        return Translated(
            text=" ".join(filter(None, texts)) if pieces else " ".join(sentence.split()),
            input_tokens=sum(map(len, pieces)),
            new_tokens=new_tokens,
            log_probability=sum(output.log_probability for output in outputs) / max(new_tokens, 1),
        )


def target_limit(source_tokens: int) -> int:
    """Most target tokens for a source of so many."""
    return math.ceil(MAX_LENGTH_FACTOR * source_tokens) + LENGTH_MARGIN
