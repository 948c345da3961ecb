"""What a checkpoint's own configuration says of the texts that its decoder writes, in general and for each task."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from shared.checkpoints.catalog import Pair
from shared.errors import SuiteError, WeightsCorrupt

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

MOST_BEAMS = 32
"""That a checkpoint may prefer: so many lines has a step of the batched engine."""


def translation_task(pair: Pair) -> str:
    """The task's name in `task_specific_params`: `translation_en_to_fr`."""
    return f"translation_{pair[0]}_to_{pair[1]}"


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
    and `early_stopping` (true or false). `num_beams` counts where the request names no number.
    Left to the request: `max_length`, `do_sample` and what shapes sampling. A request may allow fewer tokens than
    `min_length`; the text is cut there, as by `generate`.
    Anything else that changes outputs raises `SuiteError`, so that no checkpoint quietly answers otherwise than its
    authors meant.
    """

    def __init__(self, generation: Any, config: Any = None) -> None:
        """`generation`: a `GenerationConfig`. `config`: the model's, whose `task_specific_params` `for_task` reads."""
        asked = [name for name, nothing in NOT_DONE.items() if getattr(generation, name, None) not in (None, nothing)]
        asked += ["early_stopping"] if generation.early_stopping not in (None, False, True) else []
        asked += ["num_beams"] if generation.num_beams not in (None, *range(1, MOST_BEAMS + 1)) else []
        if asked:
            raise SuiteError(
                f"the checkpoint's generation config asks for what this engine does not do ({', '.join(asked)}), and "
                "its texts would be others than its authors mean; choose another checkpoint",
                field="model",
            )
        self.start: int = generation.decoder_start_token_id
        self.ends = _ids(generation.eos_token_id)
        self.num_beams: int = generation.num_beams or 1
        """Where the request leaves it to the checkpoint; 1 is greedy."""
        self.length_penalty = 1.0 if generation.length_penalty is None else float(generation.length_penalty)
        self.early_stopping = bool(generation.early_stopping)
        self.first: int | None = generation.forced_bos_token_id
        """The first token of every output, if the checkpoint says so; a translation's language may say otherwise."""
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
        """With what config.json says of a task besides, as the pipelines of transformers 4 had it; these where nothing.

        Raises `SuiteError` (field `model`) where that is more than is done here, or makes no sense.
        """
        said = self._tasks.get(task)
        if not isinstance(said, dict):
            return self
        if task not in self._of_tasks:  # asked at every request
            self._of_tasks[task] = self._with(said, task)
        return self._of_tasks[task]

    def _with(self, said: dict[str, Any], task: str) -> Rules:
        generation = copy.deepcopy(self._generation)
        try:
            generation.update(**said)  # but for a prefix, which is no matter of the decoder
            return Rules(generation)
        except (TypeError, ValueError) as error:
            raise WeightsCorrupt(
                f"what the checkpoint's config.json says of {task} makes no sense; tell its owner, or choose another "
                "checkpoint",
                field="model",
            ) from error

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


def _ids(value: int | Sequence[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def _only(tokens: list[int], scores: Tensor) -> Tensor:
    """Scores under which nothing but `tokens` can be chosen."""
    only = torch.full_like(scores, -torch.inf)
    only[:, tokens] = 0
    return only
