"""Decoding with an encoder-decoder of `transformers`: greedy or with beams, many sources at a time.

Outputs equal those of transformers' own `generate` with the checkpoint's generation config (tested). The encoder
and the keys and values of the cross-attention are computed once a source; each token is one step of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from shared.engines import Compute, Sampling
from shared.engines.beam import Hypothesis, beam_search
from shared.engines.greedy import greedy_search
from shared.errors import SuiteError
from shared.sampling import adjusted

NOT_DONE = {
    "begin_suppress_tokens": None,
    "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0,
    "min_new_tokens": 0,
    "num_beam_groups": 1,
    "penalty_alpha": None,
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "watermarking_config": None,
}
"""What a generation config may ask for and `Rules` does not do, and the value that asks for nothing."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written for one source: new tokens, with the end token unless the limit came first."""

    tokens: list[int]
    log_probability: float
    """Of all tokens together (natural log), a token that the rules force counting as certain."""


class Lines(Protocol):
    """What is being written: the lines of a batch, all of them so many tokens long."""

    @property
    def written(self) -> Tensor:
        """int64 (lines, tokens): of each line so far, the token that starts the decoder included."""
        ...

    @property
    def limits(self) -> Tensor:
        """int64 (lines,): the most new tokens of each, end token included."""
        ...

    @property
    def first(self) -> int | None:
        """What is forced as the first token."""
        ...


class Rules:
    """What a checkpoint's generation config says of every output.

    Done: `decoder_start_token_id`, `eos_token_id`, `forced_bos_token_id`, `forced_eos_token_id` (at each source's own
    limit), `bad_words_ids`, `min_length`, `no_repeat_ngram_size`, `renormalize_logits`, and for beams `length_penalty`
    and `early_stopping` (true or false).
    Left to the request: `max_length`, `num_beams`, `do_sample` and what shapes sampling.
    Anything else that changes outputs raises `SuiteError`, so that no checkpoint quietly answers otherwise than its
    authors meant.
    """

    def __init__(self, config: Any) -> None:
        asked = [name for name, nothing in NOT_DONE.items() if getattr(config, name, None) not in (None, nothing)]
        asked += ["early_stopping"] if config.early_stopping not in (None, False, True) else []
        if asked:
            raise SuiteError(
                f"the checkpoint's generation config asks for what this engine does not do ({', '.join(asked)}), and "
                "its texts would be others than its authors mean; choose another checkpoint",
                field="model",
            )
        self.start: int = config.decoder_start_token_id
        self.ends = _ids(config.eos_token_id)
        self.length_penalty: float = 1.0 if config.length_penalty is None else config.length_penalty
        self.early_stopping = bool(config.early_stopping)
        self.first: int | None = config.forced_bos_token_id
        """The first token of every output, if the checkpoint says so; a translation's language may say otherwise."""
        self._last = _ids(config.forced_eos_token_id)
        self._renormalize = bool(config.renormalize_logits)
        self._processors = self._of_transformers(config)

    def _of_transformers(self, config: Any) -> list[Any]:
        """In the order of `GenerationMixin._get_logits_processor`."""
        from transformers.generation.logits_process import (
            MinLengthLogitsProcessor,
            NoBadWordsLogitsProcessor,
            NoRepeatNGramLogitsProcessor,
        )

        processors: list[Any] = []
        if config.no_repeat_ngram_size:
            processors.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
        if config.bad_words_ids:
            processors.append(NoBadWordsLogitsProcessor(config.bad_words_ids, self.ends))
        if config.min_length:
            processors.append(MinLengthLogitsProcessor(config.min_length, self.ends))
        return processors

    def allowed(self, scores: Tensor, lines: Lines) -> Tensor:
        """Scores of the next token, (lines, vocabulary), with what is forbidden at -inf.

        `scores` are logits or log-probabilities, which are left unchanged.
        """
        for process in self._processors:
            scores = process(lines.written, scores)
        if lines.first is not None and lines.written.shape[1] == 1:
            scores = _only([lines.first], scores)
        if self._last:
            at_limit = lines.limits.eq(lines.written.shape[1])
            scores = torch.where(at_limit[:, None], _only(self._last, scores), scores)
        return scores

    def log_probabilities(self, logits: Tensor, lines: Lines) -> Tensor:
        """What greedy and beam search maximise, float32 (lines, vocabulary)."""
        scores = self.allowed(logits.log_softmax(-1), lines)
        return scores.log_softmax(-1) if self._renormalize else scores


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


def _ids(value: int | Sequence[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def _only(tokens: list[int], scores: Tensor) -> Tensor:
    """Scores under which nothing but `tokens` can be chosen."""
    only = torch.full_like(scores, -torch.inf)
    only[:, tokens] = 0
    return only


class Decoder:
    """A batch on its way through the decoder. A *line* is one source, or one beam of it.

    Making one runs the encoder.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: Any,
        rules: Rules,
        sources: Sequence[Sequence[int]],
        limits: Sequence[int],
        first: int | None = None,
    ) -> None:
        """`limits` are the most new tokens of each source, end token included; `first` is forced as the first."""
        from transformers import DynamicCache, EncoderDecoderCache

        shape = (len(sources), max(map(len, sources)))
        ids, self.mask = torch.full(shape, model.config.pad_token_id), torch.zeros(shape, dtype=torch.long)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = torch.tensor(source)
            self.mask[row, : len(source)] = 1
        self.model = model
        self.encoded = model.get_encoder()(input_ids=ids, attention_mask=self.mask).last_hidden_state
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.source_of = torch.arange(len(sources))
        """Which source each line is of."""
        self.limits = torch.tensor(limits)
        self.written = torch.full((len(sources), 1), rules.start)
        """Token ids of each line so far, the one that starts the decoder included."""
        self.first = rules.first if first is None else first

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


def decode(
    model: Any,
    rules: Rules,
    sources: Sequence[Sequence[int]],
    limits: Sequence[int],
    num_beams: int,
    compute: Compute,
    first: int | None = None,
) -> list[Written]:
    """The best output for each source, greedy (`num_beams` 1) or by beam search: one step for the encoder, then one a
    token. Arguments as of `Decoder`."""
    decoder = compute(lambda: Decoder(model, rules, sources, limits, first))
    if num_beams == 1:
        return _greedy(decoder, rules, limits, compute)

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
        max_new_tokens=limits,
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
