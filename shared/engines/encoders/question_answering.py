"""The PyTorch engine for extractive question answering: which piece of a text answers a question.

A head gives each token a logit for being the answer's first and one for its last (Devlin et al. 2019, section 4.2).
Spans are scored as transformers 4's `question-answering` pipeline did, which transformers 5 no longer has: in each
window a softmax over its part of the text and the classification token, which stands for "not here"; a span's score
is the product of its two ends' probabilities; spans of all windows compete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from shared.checkpoints.catalog import Checkpoint
from shared.engines.compute import Compute, run_here
from shared.engines.pretrained.inputs import EncoderInputs
from shared.engines.pretrained.loading import load_text_model, nbytes_of
from shared.engines.pretrained.padded_batches import text_batches
from shared.engines.protocols import AnswerSpan, NoCache
from shared.errors import InvalidInput
from shared.events import Progress
from shared.settings import Settings

STRIDE = 128
"""Tokens that a window of the text has in common with the one before; a third of a small window."""
LONGEST_ANSWER = 30
"""Tokens."""


@dataclass(frozen=True, slots=True)
class Window:
    """Question and one piece of the text, as the model reads them."""

    encoding: Any
    text_tokens: np.ndarray
    """Places of the text's tokens in `encoding`, shape (tokens,)."""
    offsets: np.ndarray
    """Where each of them begins and ends in the text, in characters, shape (tokens, 2)."""


class TorchQuestionAnswerer(NoCache):
    """A question and a text in; pieces of the text that answer it out."""

    name = "torch-fp32"

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int) -> None:
        self.model = model
        self.max_tokens = max_tokens
        self.nbytes = nbytes_of(model)
        self._cls = tokenizer.cls_token_id
        self._inputs = EncoderInputs(model, tokenizer, max_tokens)
        self.batches = text_batches(model, self._inputs, self._forward, lambda window: len(window.encoding.ids))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens left out."""
        return self._inputs.count_tokens(texts)

    def answer(self, question: str, context: str, top_k: int, compute: Compute = run_here) -> list[AnswerSpan]:
        """The `top_k` likeliest answers, likeliest first, none overlapping a likelier one; fewer if there are no more.

        Raises `InvalidInput` (field `question`) for a question that takes more than half of the window.
        """
        windows = list(self._windows(question, context))
        spans, scores = [np.empty((0, 2), dtype=np.int64)], [np.empty(0)]
        for window, logits in zip(windows, self.batches.results(windows, compute), strict=True):
            found, their_scores = self._candidates(window, logits)
            spans.append(found)
            scores.append(their_scores)
        return best_apart(context, np.concatenate(spans), np.concatenate(scores), top_k)

    def _windows(self, question: str, context: str) -> Iterator[Window]:
        asked, text = self._inputs.encode([question, context])
        room = self.max_tokens - self._inputs.special_tokens(pair=True) - len(asked.ids)
        if room < self.max_tokens // 2:
            most = self.max_tokens // 2 - self._inputs.special_tokens(pair=True)
            raise InvalidInput(
                f"is {len(asked.ids):,} tokens long and may have {most:,}, to leave room for the text; shorten it",
                field="question",
            )
        if not text.ids:
            return
        offsets = np.array(text.offsets, dtype=np.int64).reshape(-1, 2)
        stride = min(STRIDE, self.max_tokens // 3)
        text.truncate(room, stride=stride)
        begin = 0
        for piece in [text, *text.overflowing]:
            encoding = self._inputs.joined(asked, piece)
            places = np.flatnonzero([sequence == 1 for sequence in encoding.sequence_ids])
            yield Window(encoding, places, offsets[begin : begin + len(places)])
            begin += room - stride

    def _forward(self, windows: Sequence[Window]) -> list[np.ndarray]:
        """Logits of each token being an answer's first and last; of each window float32 (2, tokens and padding)."""
        output = self.model(**self._inputs.tensors([window.encoding for window in windows]))
        return list(torch.stack([output.start_logits, output.end_logits], dim=1).numpy())

    def _candidates(self, window: Window, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Begin and end in the text, in characters, of every span of the window, shape (spans, 2), and their scores."""
        allowed = window.text_tokens
        nowhere = [i for i, token in enumerate(window.encoding.ids) if token == self._cls][:1]
        # Of these alone the softmax is taken; the classification token's share then belongs to no span.
        kept = logits[:, [*allowed, *nowhere]].astype(np.float64)
        starts, ends = softmax(kept, axis=1)[:, : len(allowed)]
        first, length = np.meshgrid(np.arange(len(allowed)), np.arange(LONGEST_ANSWER), indexing="ij")
        first, last = first.ravel(), (first + length).ravel()
        first, last = first[last < len(allowed)], last[last < len(allowed)]
        spans = np.stack([window.offsets[first, 0], window.offsets[last, 1]], axis=1)
        return spans, starts[first] * ends[last]


def best_apart(context: str, spans: np.ndarray, scores: np.ndarray, top_k: int) -> list[AnswerSpan]:
    """The `top_k` highest scores whose spans, (n, 2) in characters, do not overlap. White space at the ends is cut."""
    answers: list[AnswerSpan] = []
    left = np.where(spans[:, 0] < spans[:, 1], scores, -1.0)
    while len(answers) < top_k and left.size and left.max() >= 0:
        best = int(left.argmax())
        start, end = map(int, spans[best])
        text = context[start:end]
        left[(spans[:, 0] < end) & (spans[:, 1] > start)] = -1.0
        if text.strip():
            start += len(text) - len(text.lstrip())
            answers.append(AnswerSpan(start, start + len(text.strip()), text.strip(), float(scores[best])))
    return answers


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most."""
    return checkpoint.parameters * 4


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchQuestionAnswerer:
    """Reads a verified folder. Raises as `load_text_model` does."""
    model, tokenizer, max_tokens = load_text_model("AutoModelForQuestionAnswering", checkpoint, folder, progress)
    return TorchQuestionAnswerer(model, tokenizer, max_tokens)
