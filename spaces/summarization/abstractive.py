"""Prompts for summaries by a language model, and texts longer than it reads at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.checkpoints.catalog import Checkpoint
from shared.engines.compute import Compute
from shared.engines.protocols import CausalLM, Sampling, Seq2SeqLM
from shared.errors import InvalidInput
from shared.media.text import lines, sentences
from shared.serving.lease import Lease

PART_TOKENS = 1500
"""Longest part given to the model at once, even where its window is larger: a small model summarises the first
and last lines of a longer prompt and loses the middle, and reading 1,500 tokens takes a CPU two seconds."""

MARGIN = 8
"""Tokens by which a prompt may be longer than its parts: they join differently than they split."""

SMALLEST_PART = 64
"""Tokens of text that must fit beside everything else, or a summary says nothing."""

INSTRUCTION = (
    "Provide a concise, objective summary of the input text in up to three sentences, focusing on key actions and "
    "intentions without using second or third person pronouns."
)
"""The system prompt SmolLM2-Instruct was trained with for summaries (model card)."""


class Shot(Protocol):
    """An example of the task."""

    @property
    def text(self) -> str: ...
    @property
    def summary(self) -> str: ...


@dataclass(frozen=True)
class Writer(ABC):
    """A checkpoint that writes summaries, asked in the way it was trained to be asked."""

    checkpoint: Checkpoint
    model: CausalLM | Seq2SeqLM
    compute: Compute
    style: str
    examples: Sequence[Shot] = ()

    def __post_init__(self) -> None:
        """Raises `InvalidInput` for examples that the checkpoint cannot make use of."""
        if self.examples and self.prefix is not None:
            raise InvalidInput(
                f"{self.checkpoint.id} was trained on one prefix ({self.prefix.strip()!r}) and learns from no "
                "examples in the prompt; leave them out or choose a model that follows instructions",
                field="examples",
            )

    @property
    def prefix(self) -> str | None:
        return self.checkpoint.prefixes.get("summarization")

    @property
    @abstractmethod
    def num_beams(self) -> int:
        """As the checkpoint prefers; 1 is greedy."""

    def prompt(self, text: str) -> list[int]:
        """Token ids of the prompt that asks for a summary of the text."""
        if self.prefix is not None:
            return self.model.tokenize(f"{self.prefix}{text.strip()}")
        return self.instructed(text)

    @abstractmethod
    def instructed(self, text: str) -> list[int]:
        """The prompt where the checkpoint was trained on no prefix."""

    def text_tokens(self, max_new_tokens: int) -> int:
        """Tokens of text that fit the context window beside instruction, examples and, in a causal LM, the summary.

        Raises `InvalidInput` where the examples leave none.
        """
        window = self.model.context_window
        left = window - len(self.prompt("")) - self.window_of_summary(max_new_tokens) - MARGIN
        if left < SMALLEST_PART:
            raise InvalidInput(
                f"leave no room for the text in the context window of {self.checkpoint.id} ({window:,} tokens); "
                "use fewer or shorter ones",
                field="examples" if self.examples else "max_new_tokens",
            )
        return min(PART_TOKENS, left)

    @abstractmethod
    def window_of_summary(self, max_new_tokens: int) -> int:
        """Tokens of the context window that the summary takes."""


@dataclass(frozen=True)
class ChatWriter(Writer):
    """A causal LM, asked in its chat template; examples are earlier turns."""

    model: CausalLM

    @property
    def num_beams(self) -> int:
        return 1

    def instructed(self, text: str) -> list[int]:
        instruction = f"{INSTRUCTION} The text is a conversation." if self.style == "dialogue" else INSTRUCTION
        messages = [{"role": "system", "content": instruction}]
        for example in self.examples:
            messages.append({"role": "user", "content": example.text.strip()})
            messages.append({"role": "assistant", "content": example.summary.strip()})
        return self.model.chat_prompt([*messages, {"role": "user", "content": text.strip()}])

    def window_of_summary(self, max_new_tokens: int) -> int:
        return max_new_tokens


@dataclass(frozen=True)
class Seq2SeqWriter(Writer):
    """An encoder-decoder: prompt and summary have a context window each."""

    model: Seq2SeqLM

    @property
    def num_beams(self) -> int:
        return self.model.num_beams

    def instructed(self, text: str) -> list[int]:
        return self.model.tokenize(blocks(text, self.style, self.examples))

    def window_of_summary(self, max_new_tokens: int) -> int:
        return 0


def chat_writer(lease: Lease, style: str, examples: Sequence[Shot] = ()) -> ChatWriter:
    return ChatWriter(lease.checkpoint, lease.causal_lm(), lease.compute, style, examples)


def seq2seq_writer(lease: Lease, style: str, examples: Sequence[Shot] = ()) -> Seq2SeqWriter:
    """The checkpoint, writing as its own config says of summaries where it does.

    A checkpoint that follows instructions writes without that: FLAN-T5's config, which is T5's, would have it write
    thirty tokens at least, even for a single clause.
    """
    model = lease.seq2seq()
    if not lease.checkpoint.instructions:
        model = model.for_task("summarization")
    return Seq2SeqWriter(lease.checkpoint, model, lease.compute, style, examples)


def blocks(text: str, style: str, examples: Sequence[Shot]) -> str:
    """The prompt the course teaches: instruction, text, answer; a blank line between; the last answer left open."""
    instruction, cue = f"Summarize this {style}:", "Summary:"
    shown = [f"{instruction}\n{e.text.strip()}\n{cue} {e.summary.strip()}" for e in examples]
    return "\n\n".join([*shown, f"{instruction}\n{text.strip()}\n{cue}"])


def shortened_to_fit(drafts: Sequence[str], max_new_tokens: int, writer: Writer) -> str:
    """The parts' summaries as one text; the longest are shortened until they fit."""
    most = writer.text_tokens(max_new_tokens)
    shortened = list(drafts)
    while len(writer.model.tokenize("\n".join(shortened))) > most:
        longest = max(range(len(shortened)), key=lambda i: len(shortened[i]))
        shortened[longest] = shortened[longest][: len(shortened[longest]) * 3 // 4]
    return "\n".join(shortened)


def parts(text: str, max_new_tokens: int, writer: Writer) -> list[str]:
    """The text in parts that the model can read, broken between sentences or turns; one part if it fits."""
    most, model = writer.text_tokens(max_new_tokens), writer.model
    dialogue = writer.style == "dialogue"
    if len(model.tokenize(text)) <= most:
        return [text]
    pieces = lines(text) if dialogue else sentences(text)
    found: list[list[str]] = [[]]
    used = 0
    for piece in (short for long in pieces for short in _broken(long.text, most, model)):
        tokens = len(model.tokenize(piece)) + 1
        if found[-1] and used + tokens > most:
            found.append([])
            used = 0
        found[-1].append(piece)
        used += tokens
    return ["\n".join(part) if dialogue else " ".join(part) for part in found]


def _broken(piece: str, most: int, model: CausalLM | Seq2SeqLM) -> list[str]:
    """A sentence too long for any part, in pieces."""
    ids = model.tokenize(piece)
    if len(ids) <= most:
        return [piece]
    return [model.detokenize(ids[start : start + most - 1]) for start in range(0, len(ids), most - 1)]


@dataclass(frozen=True, slots=True)
class Draft:
    """An unfinished text, and how many tokens it took."""

    text: str = ""
    tokens: int = 0


def written(prompt: Sequence[int], max_new_tokens: int, num_beams: int, writer: Writer) -> Iterator[Draft]:
    """The text so far, token by token; with beams, once at the end."""
    model, compute = writer.model, writer.compute
    if num_beams > 1:
        ids = model.beam_search(prompt, max_new_tokens, num_beams, compute)
        yield Draft(model.detokenize(ids).strip(), len(ids))
        return
    text = ""
    sampling = Sampling(max_new_tokens=max_new_tokens)
    for count, token in enumerate(model.generate(prompt, sampling, compute), 1):
        text += token.text
        yield Draft(text.strip(), count)
