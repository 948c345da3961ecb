"""From a text and labels to one probability per label, by a sentence encoder or a classifier.

A sentence encoder compares meanings; an NLI model says whether the text entails a sentence about the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from classification.requests import DESCRIPTION, FewShot, Sentiment, ZeroShot
from shared.engines.protocols import SentenceEncoder, SequenceClassifier
from shared.errors import InvalidInput
from shared.serving.lease import Lease
from shared.serving.requests import Request, labels

SENTIMENTS = ("positive", "negative")

SIMILARITY_SCALE = 42.5
"""Softmax scale that turns cosine similarities into probabilities: the one with the least negative log-likelihood
on `tests/data/topics.jsonl` (`make eval` prints the curve)."""

SIMILARITY_MIDPOINT = 0.095
"""Cosine similarity that counts as one half where labels are judged one by one (`multi_label`)."""

SPECIAL_TOKENS = 4
"""Markers of beginning, end and separation around a text and its hypothesis, at most."""


@dataclass(frozen=True, slots=True)
class Score:
    """Probability of each label, in the order of the labels; `raw` is before calibration, where there is any."""

    labels: Sequence[str]
    probabilities: np.ndarray
    raw: np.ndarray
    method: str
    prompt: str = ""
    """The exact prompt that a language model read."""
    input_tokens: int = 0
    """Tokens of that prompt."""
    context_window: int = 0
    """Tokens that the language model reads at most."""


class Scorer(Protocol):
    """A checkpoint that gives labels to texts. The requests of one call differ in their texts alone."""

    def zero_shot(self, requests: Sequence[ZeroShot]) -> list[Score]: ...

    def few_shot(self, requests: Sequence[FewShot]) -> list[Score]: ...

    def sentiment(self, requests: Sequence[Sentiment]) -> list[Score]: ...

    def count_tokens(self, text: str) -> int: ...

    def truncation(self, text: str, hypothesis: str) -> str:
        """A warning where only the beginning of the text is read, else ""."""
        return ""


def softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def sigmoid(scores: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-scores))


@dataclass(frozen=True)
class SimilarityScorer(Scorer):
    """Cosine similarity of a text to each label's descriptions (their mean where there are several)."""

    lease: Lease
    encoder: SentenceEncoder

    def zero_shot(self, requests: Sequence[ZeroShot]) -> list[Score]:
        first, names = requests[0], labels(requests[0].candidate_labels)
        described = [[first.hypothesis_template.replace("{}", name)] for name in names]
        return self.similarities([r.text for r in requests], names, described, multi_label=first.multi_label)

    def few_shot(self, requests: Sequence[FewShot]) -> list[Score]:
        first, names = requests[0], labels(requests[0].candidate_labels)
        if first.instruction.strip() not in ("", FewShot.model_fields["instruction"].default):
            raise InvalidInput(
                f"{self.lease.checkpoint.id} compares meanings and follows no instruction; leave this empty or choose "
                "a language model",
                field="instruction",
            )
        # Nearest centroid of the examples and of the label's own description, which counts as one more of them:
        # with a handful of examples that is better than either alone (`make eval`).
        described = [
            [DESCRIPTION.format(name), *(e.text for e in first.examples if e.label.strip() == name)] for name in names
        ]
        return self.similarities([request.text for request in requests], names, described)

    def sentiment(self, requests: Sequence[Sentiment]) -> list[Score]:
        described = [[f"This review is {name}."] for name in SENTIMENTS]
        return self.similarities([request.text for request in requests], SENTIMENTS, described)

    def count_tokens(self, text: str) -> int:
        return sum(self.encoder.count_tokens([text]))

    def similarities(
        self,
        texts: Sequence[str],
        names: Sequence[str],
        descriptions: Sequence[Sequence[str]],
        *,
        multi_label: bool = False,
    ) -> list[Score]:
        flat = [text for group in descriptions for text in group]
        described = self.encoder.encode(flat, self.lease.compute, keep=True)
        vectors = self.encoder.encode(texts, self.lease.compute)
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
        return [Score(names, row, row, "sentence similarity") for row in rows]


@dataclass(frozen=True)
class OwnLabelsScorer(Scorer):
    """A classifier that chooses among the labels it was trained on, by a softmax of its logits."""

    lease: Lease
    classifier: SequenceClassifier

    def zero_shot(self, requests: Sequence[ZeroShot]) -> list[Score]:
        self._refuse_changed(requests[0], "hypothesis_template", "multi_label")
        return self._own_labels(requests)

    def few_shot(self, requests: Sequence[FewShot]) -> list[Score]:
        self._refuse_changed(requests[0], "instruction", "examples")
        return self._own_labels(requests)

    def sentiment(self, requests: Sequence[Sentiment]) -> list[Score]:
        """By all labels of the checkpoint; SST-2's are POSITIVE and NEGATIVE."""
        logits = self.classifier.logits([request.text for request in requests], self.lease.compute)
        return self._scores([label.lower() for label in self.classifier.labels], logits)

    def count_tokens(self, text: str) -> int:
        return sum(self.classifier.count_tokens([text]))

    def truncation(self, text: str, hypothesis: str) -> str:
        tokens, others = self.classifier.count_tokens([text, hypothesis])
        read = self.classifier.max_tokens - others - SPECIAL_TOKENS
        return f"Only about the first {read:,} of the text's {tokens:,} tokens were read." if tokens > read else ""

    def _own_labels(self, requests: Sequence[ZeroShot | FewShot]) -> list[Score]:
        """Raises `InvalidInput` for a label that the classifier was not trained on, naming those that it was."""
        names = labels(requests[0].candidate_labels)
        known = {label.lower(): position for position, label in enumerate(self.classifier.labels)}
        unknown = [name for name in names if name.lower() not in known]
        if unknown:
            raise InvalidInput(
                f"has {unknown[0]!r}, and {self._name} was trained on its own labels: "
                f"{', '.join(self.classifier.labels)}. Choose among these, or another model",
                field="candidate_labels",
            )
        logits = self.classifier.logits([request.text for request in requests], self.lease.compute)
        return self._scores(names, logits[:, [known[name.lower()] for name in names]])

    @property
    def _name(self) -> str:
        return f"the adapter {self.lease.adapter.name}" if self.lease.adapter else self.lease.checkpoint.id

    def _scores(self, names: Sequence[str], logits: np.ndarray) -> list[Score]:
        return [Score(names, row, row, "classification head") for row in softmax(logits)]

    def _refuse_changed(self, request: Request, *fields: str) -> None:
        """Raises `InvalidInput` for a field that is not at its default, since the classifier reads the text alone."""
        for name in fields:
            value, default = getattr(request, name), type(request).model_fields[name].default
            if value != default and value not in ("", ()):
                raise InvalidInput(
                    f"means nothing to {self._name}, which was trained on its labels and reads the text alone; "
                    "leave this as it was, or choose another model",
                    field=name,
                )


class EntailmentScorer(OwnLabelsScorer):
    """Without examples, whether a text entails each label's hypothesis (Yin et al. 2019).

    Computed as transformers' zero-shot pipeline does. One label: a softmax of the entailment logits over the labels.
    `multi_label`: of each label's entailment against its contradiction. The checkpoint's config names the logits.
    """

    def zero_shot(self, requests: Sequence[ZeroShot]) -> list[Score]:
        first, names = requests[0], labels(requests[0].candidate_labels)
        known = [label.lower() for label in self.classifier.labels]
        entailment = next((i for i, label in enumerate(known) if label.startswith("entail")), None)
        contradiction = next((i for i, label in enumerate(known) if label.startswith("contra")), None)
        if entailment is None or (first.multi_label and contradiction is None):
            raise InvalidInput(
                f"{self.lease.checkpoint.id} has the labels {', '.join(self.classifier.labels)}, so it cannot judge "
                "entailment; choose an NLI model",
                field="model",
            )
        pairs = [(r.text, first.hypothesis_template.replace("{}", name)) for r in requests for name in names]
        logits = self.classifier.logits(pairs, self.lease.compute).reshape(len(requests), len(names), len(known))
        if first.multi_label:
            rows = softmax(logits[:, :, [contradiction, entailment]])[:, :, 1]
        else:
            rows = softmax(logits[:, :, entailment])
        return [Score(names, row, row, "entailment") for row in rows]
