"""What engines can do: one Protocol per kind of model.

Over 300 lines, since whoever writes an engine or calls one should find all of it in one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from shared.engines.compute import Compute, run_here


class Engine(Protocol):
    """What the model cache holds."""

    name: str
    """Shown in RunInfo, e.g. `torch-bf16`."""
    nbytes: int
    """Bytes of weights in memory."""

    @property
    def cached_bytes(self) -> int:
        """Bytes of its cache, by which a later request computes less."""
        ...

    @property
    def max_cached_bytes(self) -> int:
        """Most bytes that its cache would ever use."""
        ...

    def limit_cache(self, nbytes: int) -> None:
        """Shrinks its cache to so many bytes, and keeps it within them until the next call."""
        ...


class NoCache:
    """The base of engines without a cache."""

    @property
    def cached_bytes(self) -> int:
        return 0

    @property
    def max_cached_bytes(self) -> int:
        return 0

    def limit_cache(self, nbytes: int) -> None:
        """Does nothing."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. Ranges are checked in the request models."""

    max_new_tokens: int = 128
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    """Keskar et al. 2019 (CTRL): above 1, tokens already present become less likely."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One new token and how sure the model was of it."""

    id: int
    text: str
    """The text that this token completes; empty while a multi-byte character is unfinished."""
    probability: float
    """Of this token under the model's own distribution, before temperature, top-k and top-p; 0 to 1."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Log-likelihood of a label given a prompt: the sum over its tokens (natural log) and their number."""

    total: float
    tokens: int

    @property
    def per_token(self) -> float:
        return self.total / max(self.tokens, 1)


@dataclass(frozen=True, slots=True)
class Translated:
    """One translated sentence. `log_probability` is per target token (natural log), end token included."""

    text: str
    input_tokens: int
    new_tokens: int
    log_probability: float


class CausalLM(Engine, Protocol):
    """A decoder that continues a prompt."""

    context_window: int
    """Tokens of prompt and completion together."""
    chats: bool
    """Whether it has a chat template, and so was trained on conversations."""

    def tokenize(self, text: str) -> list[int]: ...

    def detokenize(self, ids: Sequence[int], *, special_tokens: bool = False) -> str:
        """The text of tokens; markers such as the end of a turn are left out unless `special_tokens`."""
        ...

    def chat_prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids of a conversation in the checkpoint's own chat template, ready for the reply.

        Raises `InvalidInput`: field `model` where it does not chat, `system_prompt` where it takes none, `history`
        where its template refuses the order of turns.
        """
        ...

    def generate(
        self, prompt: Sequence[int], sampling: Sampling, compute: Compute = run_here
    ) -> Iterator[GeneratedToken]:
        """Yields each new token as it is drawn; ends at the end token, at `max_new_tokens` or at the window's end."""
        ...

    def beam_search(
        self, prompt: Sequence[int], max_new_tokens: int, num_beams: int, compute: Compute = run_here
    ) -> list[int]:
        """Token ids of the best completion, end token excluded."""
        ...

    def next_token_logits(self, prompt: Sequence[int], compute: Compute = run_here) -> np.ndarray:
        """float32 logits over the vocabulary, shape (vocabulary,)."""
        ...

    def label_likelihoods(
        self, prompts: Sequence[str], labels: Sequence[str], compute: Compute = run_here
    ) -> list[list[Likelihood]]:
        """`result[i][j]` is the likelihood of `labels[j]` (its own leading space included) after `prompts[i]`.

        What all prompts have in common at the front is computed once.
        """
        ...


class SentenceEncoder(Engine, Protocol):
    """Texts in, unit vectors out."""

    max_tokens: int
    """Tokens of one text; longer ones are split, and the parts' vectors averaged."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]: ...

    def encode(self, texts: Sequence[str], compute: Compute = run_here, *, keep: bool = False) -> np.ndarray:
        """float32, shape (texts, dimensions), each row of length 1.

        With `keep` the vectors are kept for the same visitor's next request, as labels come again with every text.
        """
        ...


class Translator(Engine, Protocol):
    """One language pair or many, sentence by sentence."""

    def translate(
        self,
        sentences: Sequence[str],
        num_beams: int = 1,
        compute: Compute = run_here,
        *,
        pair: tuple[str, str] | None = None,
    ) -> list[Translated]:
        """Translates in batches; the order is kept. `num_beams` 1 is greedy, 0 as the checkpoint prefers.

        `pair` is source and target language (ISO 639-1); a translator of one pair does not need it.
        """
        ...


class Seq2SeqLM(Translator, Protocol):
    """An encoder that reads a source text and a decoder that writes another (T5, Marian, M2M100)."""

    context_window: int
    """Tokens of the source, its end token included."""

    @property
    def num_beams(self) -> int:
        """As the checkpoint prefers; 1 is greedy."""
        ...

    def for_task(self, task: str) -> Seq2SeqLM:
        """Itself, writing as its config.json says that it does for a task (`summarization`).

        Raises `SuiteError` (field `model`) where that asks for something that is not implemented.
        """
        ...

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a source text as the encoder reads it, end token included."""
        ...

    def detokenize(self, ids: Sequence[int], *, special_tokens: bool = False) -> str: ...

    def generate(
        self, source: Sequence[int], sampling: Sampling, compute: Compute = run_here
    ) -> Iterator[GeneratedToken]:
        """Yields each new token as it is drawn; ends at the end token or at `max_new_tokens`."""
        ...

    def beam_search(
        self, source: Sequence[int], max_new_tokens: int, num_beams: int, compute: Compute = run_here
    ) -> list[int]:
        """Token ids of the best output, end token excluded."""
        ...


class SequenceClassifier(Engine, Protocol):
    """A text, or a pair of texts, in; one logit a label out (sentiment, entailment)."""

    labels: tuple[str, ...]
    """In the order of the logits, as the checkpoint's config names them."""
    max_tokens: int
    """Tokens read of one input, special tokens included; of more, the end of the first text is left out."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens left out."""
        ...

    def logits(self, inputs: Sequence[str | tuple[str, str]], compute: Compute = run_here) -> np.ndarray:
        """float32, shape (inputs, labels)."""
        ...


@dataclass(frozen=True, slots=True)
class FilledToken:
    """A token in the place of a mask; `probability` is over the whole vocabulary."""

    id: int
    text: str
    probability: float


class MaskedLM(Engine, Protocol):
    """A model that says which token stands behind a mask."""

    mask_token: str
    max_tokens: int
    """Tokens of the text, special tokens included."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]: ...

    def fill(self, text: str, top_k: int, compute: Compute = run_here) -> list[list[FilledToken]]:
        """For each mask of the text in order, its `top_k` likeliest tokens, likeliest first.

        Raises `InvalidInput` (field `text`) for a text without a mask, or longer than `max_tokens`.
        """
        ...


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """A piece of the context that answers: `text == context[start:end]`. `score` is its probability, 0 to 1."""

    start: int
    end: int
    text: str
    score: float


class QuestionAnswerer(Engine, Protocol):
    """Finds the answer to a question in a text."""

    max_tokens: int
    """Tokens of question and one window of the context; longer contexts are read in overlapping windows."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]: ...

    def answer(self, question: str, context: str, top_k: int, compute: Compute = run_here) -> list[AnswerSpan]:
        """The `top_k` likeliest answers, likeliest first, none overlapping a likelier one."""
        ...


class AudioClassifier(Engine, Protocol):
    """Windows of sound in; one logit a label and window out. The length of a window is in its catalog entry."""

    labels: tuple[str, ...]
    sampling_rate: int
    """Hz of the samples it is given."""
    multi_label: bool
    """Whether its labels are independent (sigmoid) or exclude each other (softmax)."""

    def logits(self, windows: Sequence[np.ndarray], compute: Compute = run_here) -> np.ndarray:
        """float32 mono windows of equal length in [-1, 1] → float32, shape (windows, labels)."""
        ...


class AudioEncoder(AudioClassifier, Protocol):
    """A classifier that also gives its inner features, on which another head can be trained."""

    def features(
        self,
        windows: Sequence[np.ndarray],
        compute: Compute = run_here,
        *,
        layer: Literal["penultimate", "pooled"] = "penultimate",
    ) -> np.ndarray:
        """Windows as for `logits` → float32, shape (windows, features)."""
        ...
