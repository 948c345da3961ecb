"""Prompts for summaries by a language model, and texts longer than it reads at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shared.engines.protocols import Sampling
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
class Asking:
    """How a checkpoint is asked for a summary: in the way it was trained to be asked."""

    lease: Lease
    style: str
    examples: Sequence[Shot] = ()

    def __post_init__(self) -> None:
        """Raises `InvalidInput` for examples that the checkpoint cannot make use of."""
        if self.examples and self.prefix is not None:
            raise InvalidInput(
                f"{self.lease.checkpoint.id} was trained on one prefix ({self.prefix.strip()!r}) and learns from no "
                "examples in the prompt; leave them out or choose a model that follows instructions",
                field="examples",
            )

    @property
    def prefix(self) -> str | None:
        return self.lease.checkpoint.prefixes.get("summarization")

    @property
    def engine(self) -> Any:
        """The checkpoint's, writing as its own config says of summaries where it does.

        Of what follows instructions no task is asked by its name: FLAN-T5's config, which is T5's, would have it write
        thirty tokens where a clause is asked for.
        """
        checkpoint, engine = self.lease.checkpoint, self.lease.engine
        if checkpoint.kind != "seq2seq" or checkpoint.instructions:
            return engine
        return engine.for_task("summarization")

    @property
    def num_beams(self) -> int:
        """As the checkpoint prefers; 1 is greedy."""
        return self.engine.num_beams if self.lease.checkpoint.kind == "seq2seq" else 1

    def prompt(self, text: str) -> list[int]:
        """Token ids of the prompt that asks for a summary of the text."""
        engine = self.lease.engine
        if self.prefix is not None:
            return engine.tokenize(f"{self.prefix}{text.strip()}")
        if self.lease.checkpoint.kind == "seq2seq":
            return engine.tokenize(blocks(text, self.style, self.examples))
        asked = f"{INSTRUCTION} The text is a conversation." if self.style == "dialogue" else INSTRUCTION
        messages = [{"role": "system", "content": asked}]
        for example in self.examples:
            messages.append({"role": "user", "content": example.text.strip()})
            messages.append({"role": "assistant", "content": example.summary.strip()})
        return engine.chat_prompt([*messages, {"role": "user", "content": text.strip()}])

    def room(self, max_new_tokens: int) -> int:
        """Tokens of text that fit the context window beside instruction, examples and, in a causal LM, the summary.

        Raises `InvalidInput` where the examples leave none.
        """
        window = self.lease.engine.context_window
        summary = 0 if self.lease.checkpoint.kind == "seq2seq" else max_new_tokens
        room = window - len(self.prompt("")) - summary - MARGIN
        if room < SMALLEST_PART:
            raise InvalidInput(
                f"leave no room for the text in the context window of {self.lease.checkpoint.id} ({window:,} tokens); "
                "use fewer or shorter ones",
                field="examples" if self.examples else "max_new_tokens",
            )
        return min(PART_TOKENS, room)


def blocks(text: str, style: str, examples: Sequence[Shot]) -> str:
    """The prompt the course teaches: instruction, text, answer; a blank line between; the last answer left open."""
    instruction, cue = f"Summarize this {style}:", "Summary:"
    shown = [f"{instruction}\n{e.text.strip()}\n{cue} {e.summary.strip()}" for e in examples]
    return "\n\n".join([*shown, f"{instruction}\n{text.strip()}\n{cue}"])


def shortened_to_fit(drafts: Sequence[str], max_new_tokens: int, asking: Asking) -> str:
    """The parts' summaries as one text; the longest give way until they fit."""
    room = asking.room(max_new_tokens)
    shortened = list(drafts)
    while len(asking.lease.engine.tokenize("\n".join(shortened))) > room:
        longest = max(range(len(shortened)), key=lambda i: len(shortened[i]))
        shortened[longest] = shortened[longest][: len(shortened[longest]) * 3 // 4]
    return "\n".join(shortened)


def parts(text: str, max_new_tokens: int, asking: Asking) -> list[str]:
    """The text in parts that the model can read, broken between sentences or turns; one part if it fits."""
    room, lease = asking.room(max_new_tokens), asking.lease
    dialogue = asking.style == "dialogue"
    if len(lease.engine.tokenize(text)) <= room:
        return [text]
    pieces = lines(text) if dialogue else sentences(text)
    found: list[list[str]] = [[]]
    used = 0
    for piece in (short for long in pieces for short in _broken(long.text, room, lease)):
        tokens = len(lease.engine.tokenize(piece)) + 1
        if found[-1] and used + tokens > room:
            found.append([])
            used = 0
        found[-1].append(piece)
        used += tokens
    return ["\n".join(part) if dialogue else " ".join(part) for part in found]


def _broken(piece: str, room: int, lease: Lease) -> list[str]:
    """A sentence too long for any part, in pieces."""
    ids = lease.engine.tokenize(piece)
    if len(ids) <= room:
        return [piece]
    return [lease.engine.detokenize(ids[start : start + room - 1]) for start in range(0, len(ids), room - 1)]


@dataclass(frozen=True, slots=True)
class Draft:
    """A text under way, and how many tokens it took."""

    text: str = ""
    tokens: int = 0


def written(prompt: Sequence[int], max_new_tokens: int, num_beams: int, asking: Asking) -> Iterator[Draft]:
    """The text so far, token by token; with beams, once at the end."""
    engine, compute = asking.engine, asking.lease.compute
    if num_beams > 1:
        ids = engine.beam_search(prompt, max_new_tokens, num_beams, compute)
        yield Draft(engine.detokenize(ids).strip(), len(ids))
        return
    text = ""
    sampling = Sampling(max_new_tokens=max_new_tokens)
    for count, token in enumerate(engine.generate(prompt, sampling, compute), 1):
        text += token.text
        yield Draft(text.strip(), count)
