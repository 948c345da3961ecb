"""A checkpoint's own configuration of what its decoder writes, in general and for each task."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from shared.checkpoints.catalog import Pair
from shared.errors import SuiteError, WeightsCorrupt

UNSUPPORTED = {
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
"""Generation options this engine does not implement, each with the value that switches it off."""

MAX_BEAMS = 32
"""The most that a checkpoint may prefer: a step of the batched engine has so many lines."""


def translation_task(pair: Pair) -> str:
    """The task's name in `task_specific_params`: `translation_en_to_fr`."""
    return f"translation_{pair[0]}_to_{pair[1]}"


class Lines(Protocol):
    """The lines of a batch in progress, all of the same length."""

    @property
    def written(self) -> Tensor:
        """int64 (lines, tokens): each line so far, the token that starts the decoder included."""
        ...

    @property
    def limits(self) -> Tensor:
        """int64 (lines,): the most new tokens of each, end token included."""
        ...

    @property
    def first(self) -> int | None:
        """The first token, if it is forced."""
        ...


class Rules:
    """The rules that a checkpoint's generation config sets for every output.

    Implemented: `decoder_start_token_id`, `eos_token_id`, `forced_bos_token_id`, `forced_eos_token_id` (at each
    source's own limit), `bad_words_ids`, `min_length`, `no_repeat_ngram_size`, `renormalize_logits`, and for beams
    `length_penalty` and `early_stopping` (true or false). `num_beams` is the default for requests without a number.
    Set by the request: `max_length`, `do_sample` and the other sampling options. A request may allow fewer tokens than
    `min_length`; the text is then cut, as `generate` does.
    Any other option that changes outputs raises `SuiteError`, so that no checkpoint silently answers differently from
    what its authors meant.
    """

    def __init__(self, generation: Any, config: Any = None) -> None:
        """`generation`: a `GenerationConfig`. `config`: the model's, whose `task_specific_params` `for_task` reads."""
        unsupported = [name for name, off in UNSUPPORTED.items() if getattr(generation, name, None) not in (None, off)]
        unsupported += ["early_stopping"] if generation.early_stopping not in (None, False, True) else []
        unsupported += ["num_beams"] if generation.num_beams not in (None, *range(1, MAX_BEAMS + 1)) else []
        if unsupported:
            raise SuiteError(
                f"the checkpoint's generation config asks for what this engine does not do ({', '.join(unsupported)}), "
                "and its texts would be others than its authors mean; choose another checkpoint",
                field="model",
            )
        self.start: int = generation.decoder_start_token_id
        self.ends = _ids(generation.eos_token_id)
        self.num_beams: int = generation.num_beams or 1
        """The default for requests without a number; 1 is greedy."""
        self.length_penalty = 1.0 if generation.length_penalty is None else float(generation.length_penalty)
        self.early_stopping = bool(generation.early_stopping)
        self.first: int | None = generation.forced_bos_token_id
        """The first token of every output, if the config forces one; a translation's language may override it."""
        self._last = _ids(generation.forced_eos_token_id)
        self._renormalize = bool(generation.renormalize_logits)
        self._processors = self._of_transformers(generation)
        tasks = getattr(config, "task_specific_params", None)
        self._generation, self._tasks = generation, tasks if isinstance(tasks, dict) else {}
        self._of_tasks: dict[str, Rules] = {}

    def _of_transformers(self, generation: Any) -> list[Any]:
        """In the order of `GenerationMixin._get_logits_processor`."""
        from transformers.generation.logits_process import (
            MinLengthLogitsProcessor,
            NoBadWordsLogitsProcessor,
            NoRepeatNGramLogitsProcessor,
        )

        processors: list[Any] = []
        if generation.no_repeat_ngram_size:
            processors.append(NoRepeatNGramLogitsProcessor(generation.no_repeat_ngram_size))
        if generation.bad_words_ids:
            processors.append(NoBadWordsLogitsProcessor(generation.bad_words_ids, self.ends))
        if generation.min_length:
            processors.append(MinLengthLogitsProcessor(generation.min_length, self.ends))
        return processors

    def for_task(self, task: str) -> Rules:
        """With the task's own options in config.json, as the pipelines of transformers 4 applied them.

        Returns these rules unchanged where config.json says nothing of the task. Raises `SuiteError` (field `model`)
        for options that are not implemented, and `WeightsCorrupt` for values that make no sense.
        """
        said = self._tasks.get(task)
        if not isinstance(said, dict):
            return self
        if task not in self._of_tasks:  # called at every request
            self._of_tasks[task] = self._with(said, task)
        return self._of_tasks[task]

    def _with(self, said: dict[str, Any], task: str) -> Rules:
        generation = copy.deepcopy(self._generation)
        try:
            generation.update(**said)  # a prefix among them has no effect: it is not the decoder's
            return Rules(generation)
        except (TypeError, ValueError) as error:
            raise WeightsCorrupt(
                f"what the checkpoint's config.json says of {task} makes no sense; tell its owner, or choose another "
                "checkpoint",
                field="model",
            ) from error

    def allowed(self, scores: Tensor, lines: Lines) -> Tensor:
        """Scores of the next token, (lines, vocabulary), with forbidden tokens at -inf.

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
        """The scores that greedy and beam search maximise, float32 (lines, vocabulary)."""
        scores = self.allowed(logits.log_softmax(-1), lines)
        return scores.log_softmax(-1) if self._renormalize else scores


def _ids(value: int | Sequence[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def _only(tokens: list[int], scores: Tensor) -> Tensor:
    """Scores under which only `tokens` can be chosen."""
    only = torch.full_like(scores, -torch.inf)
    only[:, tokens] = 0
    return only
