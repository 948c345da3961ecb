"""From a text and labels to one number per label, by whatever the checkpoint can do.

A sentence encoder compares meanings, a causal LM says how likely each label is as the next words, and an NLI model
whether the text entails a sentence about the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.errors import InvalidInput
from shared.serving.lease import Lease

SIMILARITY_SCALE = 42.5
"""Softmax scale that turns cosine similarities into probabilities: the one with the least negative log-likelihood
on `tests/data/topics.jsonl` (`make eval` prints the curve)."""

SIMILARITY_MIDPOINT = 0.095
"""Cosine similarity that counts as one half where labels are judged one by one (`multi_label`)."""

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs without content, whose label probabilities show the model's bias (Zhao et al. 2021)."""


@dataclass(frozen=True, slots=True)
class Score:
    """Probability of each label, in the order of the labels; `raw` is before calibration, where there is any."""

    probabilities: np.ndarray
    raw: np.ndarray
    method: str
    input_tokens: int


def softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def sigmoid(scores: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-scores))


def by_similarity(
    texts: Sequence[str], descriptions: Sequence[Sequence[str]], lease: Lease, *, multi_label: bool = False
) -> list[Score]:
    """Cosine similarity of each text to each label's descriptions (their mean where there are several)."""
    flat = [text for group in descriptions for text in group]
    described = lease.engine.encode(flat, lease.compute, keep=True)
    vectors = lease.engine.encode(texts, lease.compute)
    tokens = lease.engine.count_tokens(texts)
    prototypes, start = [], 0
    for group in descriptions:
        mean = described[start : start + len(group)].mean(axis=0)
        prototypes.append(mean / max(float(np.linalg.norm(mean)), 1e-9))
        start += len(group)
    similarities = vectors @ np.stack(prototypes).T
    if multi_label:
        rows = sigmoid(SIMILARITY_SCALE * (similarities - SIMILARITY_MIDPOINT))
    else:
        rows = softmax(SIMILARITY_SCALE * similarities)
    return [Score(row, row, "sentence similarity", count) for row, count in zip(rows, tokens, strict=True)]


def by_entailment(
    texts: Sequence[str], hypotheses: Sequence[str], lease: Lease, *, multi_label: bool = False
) -> list[Score]:
    """Whether each text entails each hypothesis (Yin et al. 2019, as transformers' zero-shot pipeline computes it).

    One label: a softmax of the entailment logits over the labels. `multi_label`: of each label's entailment against
    its contradiction. Which logit is which, the checkpoint's config says.
    """
    names = [label.lower() for label in lease.engine.labels]
    entailment = next((i for i, name in enumerate(names) if name.startswith("entail")), None)
    contradiction = next((i for i, name in enumerate(names) if name.startswith("contra")), None)
    if entailment is None or (multi_label and contradiction is None):
        raise InvalidInput(
            f"{lease.checkpoint.id} has the labels {', '.join(lease.engine.labels)}, so it cannot judge entailment; "
            "choose an NLI model",
            field="model",
        )
    pairs = [(text, hypothesis) for text in texts for hypothesis in hypotheses]
    logits = lease.engine.logits(pairs, lease.compute).reshape(len(texts), len(hypotheses), len(names))
    if multi_label:
        rows = softmax(logits[:, :, [contradiction, entailment]])[:, :, 1]
    else:
        rows = softmax(logits[:, :, entailment])
    tokens = lease.engine.count_tokens(texts)
    return [Score(row, row, "entailment", count) for row, count in zip(rows, tokens, strict=True)]


def by_head(texts: Sequence[str], lease: Lease) -> list[Score]:
    """The checkpoint's own labels: a softmax of its logits."""
    rows = softmax(lease.engine.logits(texts, lease.compute))
    tokens = lease.engine.count_tokens(texts)
    return [Score(row, row, "classification head", count) for row, count in zip(rows, tokens, strict=True)]


def by_own_labels(texts: Sequence[str], names: Sequence[str], lease: Lease) -> list[Score]:
    """The classifier's logits of those of its labels that are asked for, and a softmax over them.

    Raises `InvalidInput` for a label that it was not trained on, naming those that it was.
    """
    known = {label.lower(): place for place, label in enumerate(lease.engine.labels)}
    foreign = [name for name in names if name.lower() not in known]
    if foreign:
        raise InvalidInput(
            f"has {foreign[0]!r}, and {model_name(lease)} was trained on its own labels: "
            f"{', '.join(lease.engine.labels)}. Choose among these, or another model",
            field="candidate_labels",
        )
    places = [known[name.lower()] for name in names]
    rows = softmax(lease.engine.logits(texts, lease.compute)[:, places])
    tokens = lease.engine.count_tokens(texts)
    return [Score(row, row, "classification head", count) for row, count in zip(rows, tokens, strict=True)]


def model_name(lease: Lease) -> str:
    """What answers, as an error says it."""
    return f"the adapter {lease.adapter.name}" if lease.adapter else lease.checkpoint.id


def by_likelihood(
    prompts: Sequence[str],
    content_free: Sequence[str],
    answers: Sequence[str],
    lease: Lease,
    *,
    multi_label: bool = False,
    calibrate: bool = True,
) -> list[Score]:
    """Length-normalised likelihood of each answer after each prompt.

    `content_free` are the same prompts with nothing in place of the text. They give the calibration, and
    with `multi_label` the answer's likelihood without the text, against which each label is judged by itself.
    """
    check_window(prompts, answers, lease)
    reference = content_free if calibrate or multi_label else ()
    found = lease.engine.label_likelihoods([*prompts, *reference], answers, lease.compute)
    per_token = np.array([[likelihood.per_token for likelihood in row] for row in found])
    given, without = per_token[: len(prompts)], per_token[len(prompts) :]
    tokens = [len(lease.engine.tokenize(prompt)) for prompt in prompts]
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
    return [Score(p, r, method, n) for p, r, n in zip(probabilities, raw, tokens, strict=True)]


def check_window(prompts: Sequence[str], answers: Sequence[str], lease: Lease) -> None:
    """Refuses, before anything is computed, a prompt that does not fit the context window with its answer."""
    window = lease.engine.context_window
    longest_answer = max(len(lease.engine.tokenize(answer)) for answer in answers)
    for prompt in prompts:
        tokens = len(lease.engine.tokenize(prompt)) + longest_answer
        if tokens > window:
            raise InvalidInput(
                f"makes a prompt of {tokens:,} tokens and {lease.checkpoint.id} reads {window:,} at most; "
                "shorten the text or remove examples",
                field="text",
            )
