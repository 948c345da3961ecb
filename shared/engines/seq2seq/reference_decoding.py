"""Decoding with an encoder-decoder of `transformers`: greedy or with beams, many sources at a time.

Outputs equal those of transformers' own `generate` with the checkpoint's generation config (tested). The encoder
and the keys and values of the cross-attention are computed once a source; each token is one step of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shared.engines.compute import Compute
from shared.engines.protocols import Sampling
from shared.engines.search.beam import Hypothesis, beam_search
from shared.engines.search.greedy import greedy_search
from shared.engines.search.sampling import adjusted
from shared.engines.seq2seq.rules import Lines, Rules


@dataclass(frozen=True, slots=True)
class Sources:
    """Texts that an encoder reads, and what may be written of each."""

    ids: Sequence[Sequence[int]]
    limits: Sequence[int]
    """Most new tokens of each, end token included."""
    first: int | None = None
    """Token that is forced as the first of each; None leaves it to the rules."""

    def at(self, places: Sequence[int]) -> Sources:
        return Sources([self.ids[i] for i in places], [self.limits[i] for i in places], self.first)


@dataclass(frozen=True, slots=True)
class Written:
    """The output for one source: new tokens, with the end token unless the limit came first."""

    tokens: list[int]
    log_probability: float
    """Of all tokens together (natural log), a token that the rules force counting as certain."""


def draw(
    logits: Tensor, rules: Rules, lines: Lines, sampling: Sampling, randomness: torch.Generator
) -> tuple[int, float]:
    """The next token of the only line by its logits, (1, vocabulary), and how probable the model itself finds it."""
    scores = adjusted(rules.allowed(logits, lines)[0], sampling, lines.written[0].tolist())
    if sampling.do_sample:
        token = int(torch.multinomial(scores.softmax(0), 1, generator=randomness))
    else:
        token = int(scores.argmax())
    return token, float(logits[0].softmax(0)[token])


class Decoder:
    """A batch on its way through the decoder. A *line* is one source, or one beam of it.

    Making one runs the encoder.
    """

    @torch.inference_mode()
    def __init__(self, model: Any, rules: Rules, sources: Sources) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        shape = (len(sources.ids), max(map(len, sources.ids)))
        ids, self.mask = torch.full(shape, model.config.pad_token_id), torch.zeros(shape, dtype=torch.long)
        for row, source in enumerate(sources.ids):
            ids[row, : len(source)] = torch.tensor(source)
            self.mask[row, : len(source)] = 1
        self.model = model
        self.encoded = model.get_encoder()(input_ids=ids, attention_mask=self.mask).last_hidden_state
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.source_of = torch.arange(len(sources.ids))
        """Which source each line is of."""
        self.limits = torch.tensor(sources.limits)
        self.written = torch.full((len(sources.ids), 1), rules.start)
        """Token ids of each line so far, the one that starts the decoder included."""
        self.first = rules.first if sources.first is None else sources.first

    @torch.inference_mode()
    def logits(self, tokens: Tensor | None = None, origin: Tensor | None = None) -> Tensor:
        """float32 logits of the next token, shape (lines, vocabulary).

        `tokens` are the newest of each line (None at the start), and `origin` says which of the lines of the call
        before each line continues; None if they are the same.
        """
        if origin is not None:
            self._continue(origin)
        if tokens is not None:
            self.written = torch.cat((self.written, tokens[:, None]), 1)
        output = self.model(
            encoder_outputs=(self.encoded,),
            attention_mask=self.mask,
            decoder_input_ids=self.written[:, -1:],
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.logits[:, -1].float()

    def _continue(self, origin: Tensor) -> None:
        self.written = self.written[origin]
        self.cache.self_attention_cache.batch_select_indices(origin)
        source_of = self.source_of[origin]
        # What comes from the source is the same for all its beams, and large: moved only when lines come or go.
        if not torch.equal(source_of, self.source_of):
            self.cache.cross_attention_cache.batch_select_indices(origin)
            self.encoded, self.mask, self.limits = self.encoded[origin], self.mask[origin], self.limits[origin]
            self.source_of = source_of


def decode(model: Any, rules: Rules, sources: Sources, num_beams: int, compute: Compute) -> list[Written]:
    """The best output for each source, greedy (`num_beams` 1) or by beam search: one step for the encoder, then one a
    token."""
    decoder = compute(lambda: Decoder(model, rules, sources))
    if num_beams == 1:
        return _greedy(decoder, rules, sources.limits, compute)

    def advance(tokens: Tensor | None = None, origin: Tensor | None = None) -> Tensor:
        def step() -> Tensor:
            with torch.inference_mode():
                return rules.log_probabilities(decoder.logits(tokens, origin), decoder)

        return compute(step)

    found = beam_search(
        advance(),
        advance,
        end_ids=rules.ends,
        num_beams=num_beams,
        max_new_tokens=sources.limits,
        length_penalty=rules.length_penalty,
        early_stopping=rules.early_stopping,
    )
    return [of_beams(best, rules) for best in found]


def of_beams(best: Hypothesis, rules: Rules) -> Written:
    return Written(best.tokens, best.score * len(best.tokens) ** rules.length_penalty)


def _greedy(decoder: Decoder, rules: Rules, limits: Sequence[int], compute: Compute) -> list[Written]:
    def best(tokens: Tensor | None, origin: Tensor | None) -> tuple[Tensor, Tensor]:
        def step() -> tuple[Tensor, Tensor]:
            with torch.inference_mode():
                return rules.log_probabilities(decoder.logits(tokens, origin), decoder).max(-1)

        return compute(step)

    return [Written(*found) for found in greedy_search(best, end_ids=rules.ends, max_new_tokens=limits)]
