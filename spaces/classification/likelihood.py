"""From a text and labels to one probability per label, by a causal LM: how likely each label is as the next words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classification.requests import FewShot, Sentiment, ZeroShot
from classification.scoring import SENTIMENTS, Score, Scorer, sigmoid, softmax
from shared.engines.protocols import CausalLM
from shared.errors import InvalidInput
from shared.serving.lease import Lease
from shared.serving.requests import labels

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs without content, whose label probabilities show the model's bias (Zhao et al. 2021)."""


@dataclass(frozen=True)
class LikelihoodScorer(Scorer):
    """Length-normalised likelihood of each label as the continuation of a prompt."""

    lease: Lease
    model: CausalLM

    def zero_shot(self, requests: Sequence[ZeroShot]) -> list[Score]:
        first, names = requests[0], labels(requests[0].candidate_labels)
        before, after = first.hypothesis_template.split("{}")
        if any(character.isalnum() for character in after):
            raise InvalidInput(
                f"has words after {{}}, and {self.lease.checkpoint.id} judges a label by what stands before it; "
                "put the label last",
                field="hypothesis_template",
            )
        prompts = [f"Text: {text.strip()}\n{before.rstrip()}" for text in ["N/A", *(r.text for r in requests)]]
        answers = [spaced(name, before) for name in names]
        return self._scores(names, prompts[1:], prompts[:1], answers, multi_label=first.multi_label, calibrate=False)

    def few_shot(self, requests: Sequence[FewShot]) -> list[Score]:
        names = labels(requests[0].candidate_labels)
        prompts = [few_shot_prompt(requests[0], request.text) for request in requests]
        content_free = [few_shot_prompt(requests[0], nothing) for nothing in CONTENT_FREE]
        return self._scores(names, prompts, content_free, [f" {name}" for name in names])

    def sentiment(self, requests: Sequence[Sentiment]) -> list[Score]:
        prompts = [f"Review: {request.text.strip()}\nSentiment:" for request in requests]
        return self._scores(SENTIMENTS, prompts, (), [f" {name}" for name in SENTIMENTS], calibrate=False)

    def count_tokens(self, text: str) -> int:
        return len(self.model.tokenize(text))

    def _scores(
        self,
        names: Sequence[str],
        prompts: Sequence[str],
        content_free: Sequence[str],
        answers: Sequence[str],
        *,
        multi_label: bool = False,
        calibrate: bool = True,
    ) -> list[Score]:
        """`content_free` are the same prompts with nothing in place of the text.

        They give the calibration, and with `multi_label` the answer's likelihood without the text, against which each
        label is judged by itself.
        """
        self._check_window(prompts, answers)
        reference = content_free if calibrate or multi_label else ()
        found = self.model.label_likelihoods([*prompts, *reference], answers, self.lease.compute)
        per_token = np.array([[likelihood.per_token for likelihood in row] for row in found])
        given, without = per_token[: len(prompts)], per_token[len(prompts) :]
        raw = softmax(given)
        if multi_label:
            # Pointwise mutual information: how much more likely the text makes the label.
            probabilities = sigmoid(given - without.mean(axis=0))
        elif calibrate:
            bias = softmax(without).mean(axis=0)
            probabilities = raw / bias / (raw / bias).sum(axis=1, keepdims=True)
        else:
            probabilities = raw
        method = "label likelihood" + (", calibrated" if calibrate and not multi_label else "")
        return [
            Score(names, row, before, method, prompt, self.count_tokens(prompt), self.model.context_window)
            for row, before, prompt in zip(probabilities, raw, prompts, strict=True)
        ]

    def _check_window(self, prompts: Sequence[str], answers: Sequence[str]) -> None:
        """Refuses, before anything is computed, a prompt that does not fit the context window with its answer."""
        window, longest_answer = self.model.context_window, max(map(self.count_tokens, answers))
        for prompt in prompts:
            tokens = self.count_tokens(prompt) + longest_answer
            if tokens > window:
                raise InvalidInput(
                    f"makes a prompt of {tokens:,} tokens and {self.lease.checkpoint.id} reads {window:,} at most; "
                    "shorten the text or remove examples",
                    field="text",
                )


def few_shot_prompt(request: FewShot, text: str) -> str:
    """The blocks the course teaches: instruction, text, answer; a blank line between; the last answer left open."""
    instruction = f"{request.instruction.strip()}\n" if request.instruction.strip() else ""
    blocks = [f"{instruction}{example.text.strip()}\nLabel: {example.label.strip()}" for example in request.examples]
    return "\n\n".join([*blocks, f"{instruction}{text.strip()}\nLabel:"])


def spaced(name: str, before: str) -> str:
    """The label as it continues a template: the blank before it belongs to its first token."""
    return f" {name}" if not before or before != before.rstrip() else name
