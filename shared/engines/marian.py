"""Runs Marian's "tiny" student models (Firefox Translations) in PyTorch.

A post-norm Transformer encoder (Vaswani et al. 2017) and a decoder whose self-attention is replaced by a
simpler simple recurrent unit, SSRU (Kim et al. 2019, "From Research to Production and Back: Ludicrously Fast
Neural Machine Translation"), so that a decoder step costs the same at every position and needs no growing cache.

Notation of shapes: B sentences, S source tokens, W beams of a sentence (1 when greedy), D model dimensions,
H heads, V vocabulary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from sentencepiece import SentencePieceProcessor
from torch import Tensor

from shared.catalog import Checkpoint
from shared.engines import Compute, Translated, run_here
from shared.engines.beam import Hypothesis, beam_search
from shared.engines.marian_file import MarianFile, read_marian
from shared.errors import WeightsCorrupt
from shared.settings import Settings

Progress = Callable[[str, int, int], None]
"""`progress(what, done, total)` in bytes."""

END = 0
"""Id of `</s>` in Marian's vocabularies."""
MAX_LENGTH_FACTOR = 2.5
"""Target tokens per source token at most: `max-length-factor` of the models' own decoder configuration."""
LENGTH_MARGIN = 8
"""Target tokens allowed on top, for sources of a word or two."""
BATCH_LINES, BATCH_TOKENS = 64, 2048
"""Sentences times beams, and padded source tokens, in one batch: keeps its activations under about 50 MB."""
LAYER_NORM_EPSILON = 1e-6
"""As in Marian's `transformer.h`."""
END_OF_CLAUSE = re.compile(r"[.!?…;:,)\]}»”—–。！？；：，]['\"»”’)]*$")
RUNS = {
    "type": "transformer",
    "dec-cell": "ssru",
    "transformer-decoder-autoreg": "rnn",
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": 2,
    "dec-cell-base-depth": 2,
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "transformer-postprocess-top": "",
    "transformer-train-position-embeddings": False,
    "transformer-no-projection": False,
    "tied-embeddings-all": True,
}
"""The one architecture written down here, in Marian's option names; a file that says otherwise is refused."""


class MarianTranslator:
    """A `Translator`: one language pair, sentence by sentence."""

    name = "torch-fp32"

    def __init__(self, network: Network, vocabulary: SentencePieceProcessor, context_window: int) -> None:
        self.network = network
        self.vocabulary = vocabulary
        self.context_window = context_window
        """Tokens of one piece of a sentence, its end token included."""
        self.nbytes = network.nbytes

    def translate(self, sentences: Sequence[str], num_beams: int = 1, compute: Compute = run_here) -> list[Translated]:
        """Translates in batches; the order is kept. `num_beams` 1 is greedy.

        A sentence that is too long for the context window is translated piece by piece.
        """
        pieces = [(i, ids) for i, sentence in enumerate(sentences) for ids in self._pieces(sentence)]
        found: list[Hypothesis] = [Hypothesis([], 0.0)] * len(pieces)
        for batch in batches([len(ids) for _, ids in pieces], lines=max(1, BATCH_LINES // num_beams)):
            sources = [pieces[place][1] for place in batch]
            for place, hypothesis in zip(batch, self._decode(sources, num_beams, compute), strict=True):
                found[place] = hypothesis
        parts: list[list[tuple[list[int], Hypothesis]]] = [[] for _ in sentences]
        for (i, ids), hypothesis in zip(pieces, found, strict=True):
            parts[i].append((ids, hypothesis))
        return [self._join(part) for part in parts]

    def _decode(self, sources: list[list[int]], num_beams: int, compute: Compute) -> list[Hypothesis]:
        limits = [math.ceil(MAX_LENGTH_FACTOR * len(source)) + LENGTH_MARGIN for source in sources]
        state = compute(lambda: self.network.encode(sources))
        if num_beams == 1:
            return self._greedy(state, limits, compute)

        def advance(tokens: Tensor, origin: Tensor) -> Tensor:
            return compute(lambda: self.network.step(state, tokens, origin))

        first = compute(lambda: self.network.step(state, None, None))
        return beam_search(first, advance, end_ids=[END], num_beams=num_beams, max_new_tokens=limits)

    def _greedy(self, state: DecoderState, limits: list[int], compute: Compute) -> list[Hypothesis]:
        """The likeliest token at every position. Sentences that have ended leave the batch."""
        tokens: list[list[int]] = [[] for _ in limits]
        totals = [0.0] * len(limits)
        live = list(range(len(limits)))  # which sentence each line of the batch is
        newest, origin = None, None
        while live:
            newest, log_probs = compute(lambda: self.network.best(self.network.step(state, newest, origin)))
            stay = []
            for line, (i, token, log_prob) in enumerate(
                zip(live, newest.tolist(), log_probs.tolist(), strict=True)
            ):
                tokens[i].append(token)
                totals[i] += log_prob
                if token != END and len(tokens[i]) < limits[i]:
                    stay.append(line)
            origin = None
            if len(stay) < len(live):
                origin = torch.tensor(stay, dtype=torch.long)
                newest, live = newest[origin], [live[line] for line in stay]
        return [Hypothesis(ids, total / len(ids)) for ids, total in zip(tokens, totals, strict=True)]

    def _pieces(self, sentence: str) -> list[list[int]]:
        """Token ids, end token included, of the pieces of a sentence that fit the window; none if it is blank."""
        words = sentence.split()
        lengths = [len(ids) for ids in self.vocabulary.encode(words)] if words else []
        pieces = split_long(words, lengths, self.context_window - 1, self._token_count)
        return [self.vocabulary.encode(piece) + [END] for piece in pieces]

    def _token_count(self, text: str) -> int:
        return len(self.vocabulary.encode(text))

    def _join(self, parts: list[tuple[list[int], Hypothesis]]) -> Translated:
        texts = [self.vocabulary.decode([i for i in hypothesis.tokens if i != END]) for _, hypothesis in parts]
        new_tokens = sum(len(hypothesis.tokens) for _, hypothesis in parts)
        total = sum(hypothesis.score * len(hypothesis.tokens) for _, hypothesis in parts)
        return Translated(
            text=" ".join(text.strip() for text in texts if text.strip()),
            input_tokens=sum(len(ids) for ids, _ in parts),
            new_tokens=new_tokens,
            log_probability=total / max(new_tokens, 1),
        )


def split_long(words: list[str], lengths: list[int], limit: int, count: Callable[[str], int]) -> list[str]:
    """Packs words into pieces of at most `limit` tokens, ended after punctuation where there is some.

    Pieces never span two words in these vocabularies, so the tokens of a text are those of its words.
    """
    pieces: list[str] = []
    start, size = 0, 0
    for i, length in enumerate(lengths):
        if length > limit:  # a "word" without spaces: cut by characters
            half = len(words[i]) // 2
            halves = [words[i][:half], words[i][half:]]
            rest = split_long(halves + words[i + 1 :], [*map(count, halves), *lengths[i + 1 :]], limit, count)
            return pieces + split_long(words[start:i], lengths[start:i], limit, count) + rest
        if size + length > limit:
            window = range(i, start + (i - start) // 2, -1)
            end = next((j for j in window if END_OF_CLAUSE.search(words[j - 1])), i)
            pieces.append(" ".join(words[start:end]))
            start, size = end, sum(lengths[end:i])
        size += length
    return [*pieces, " ".join(words[start:])] if start < len(words) else pieces


def batches(lengths: Sequence[int], lines: int) -> Iterator[list[int]]:
    """Places of sentences of similar length, the longest first, bounded in number and in padded tokens."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == lines or (len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


@dataclass(slots=True)
class DecoderState:
    """Where the decoding of a batch stands."""

    keys: list[Tensor]
    """Of the source, one tensor per decoder layer: (B, H, S, D/H)."""
    values: list[Tensor]
    """The same for its values."""
    padding: Tensor | None
    """0 at source tokens, minus infinity at padding: (B, 1, 1, S); None where nothing is padded."""
    cells: list[Tensor]
    """SSRU states, one per decoder layer: (B * W, D)."""
    position: int = 0
    """Target tokens so far."""


class Network:
    """The forward passes. Dimensions, layers and heads come from the file."""

    def __init__(self, file: MarianFile, longest: int) -> None:
        for option, value in RUNS.items():
            if file.config.get(option, value) != value:
                raise WeightsCorrupt(f"the model was trained with {option}: {file.config[option]}, which this engine does not run")
        self.dimensions: int = file.config["dim-emb"]
        self.heads: int = file.config["transformer-heads"]
        get = _Weights(file).linear, _Weights(file).norm
        linear, norm = get
        self.encoder = [_encoder_layer(weights, f"encoder_l{n + 1}") for n in range(file.config["enc-depth"])]
