"""Prompts for summaries by a language model, and texts longer than it reads at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.context import Lease
from shared.engines import Sampling
from shared.text import lines, sentences

PART_TOKENS = 1500
"""Longest part given to the model at once, even where its window is larger: a small model summarises the first
and last lines of a longer prompt and loses the middle, and reading 1,500 tokens takes a CPU two seconds."""

PROMPT_TOKENS = 160
"""Room for the instruction and the chat template."""

INSTRUCTION = (
    "Provide a concise, objective summary of the input text in up to three sentences, focusing on key actions and "
    "intentions without using second or third person pronouns."
)
"""The system prompt SmolLM2-Instruct was trained with for summaries (model card)."""


def part_prompt(text: str, style: str, lease: Lease) -> list[int]:
    """Token ids of the prompt that asks for a summary of one part."""
    asked = f"{INSTRUCTION} The text is a conversation." if style == "dialogue" else INSTRUCTION
    return lease.engine.chat_prompt([{"role": "system", "content": asked}, {"role": "user", "content": text.strip()}])


def merge_prompt(drafts: Sequence[str], style: str, max_new_tokens: int, lease: Lease) -> list[int]:
    """Token ids of the prompt that joins the parts' summaries; the longest drafts give way until they fit."""
    room = part_room(max_new_tokens, lease)
    shortened = list(drafts)
    while len(lease.engine.tokenize("\n".join(shortened))) > room:
        longest = max(range(len(shortened)), key=lambda i: len(shortened[i]))
        shortened[longest] = shortened[longest][: len(shortened[longest]) * 3 // 4]
    return part_prompt("\n".join(shortened), style, lease)


def part_room(max_new_tokens: int, lease: Lease) -> int:
    return min(PART_TOKENS, lease.engine.context_window - max_new_tokens - PROMPT_TOKENS)


def parts(text: str, style: str, max_new_tokens: int, lease: Lease) -> list[str]:
    """The text in parts that the model can read, broken between sentences or turns; one part if it fits."""
    room = part_room(max_new_tokens, lease)
    if len(lease.engine.tokenize(text)) <= room:
        return [text]
    pieces = lines(text) if style == "dialogue" else sentences(text)
    found: list[list[str]] = [[]]
    used = 0
    for piece in (short for long in pieces for short in _broken(long.text, room, lease)):
        tokens = len(lease.engine.tokenize(piece)) + 1
        if found[-1] and used + tokens > room:
            found.append([])
            used = 0
        found[-1].append(piece)
        used += tokens
    return ["\n".join(part) if style == "dialogue" else " ".join(part) for part in found]


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


def written(prompt: Sequence[int], max_new_tokens: int, num_beams: int, lease: Lease) -> Iterator[Draft]:
    """The text so far, token by token; with beams, once at the end."""
    if num_beams > 1:
        ids = lease.engine.beam_search(prompt, max_new_tokens, num_beams, lease.compute)
        yield Draft(lease.engine.detokenize(ids).strip(), len(ids))
        return
    text = ""
    sampling = Sampling(max_new_tokens=max_new_tokens)
    for count, token in enumerate(lease.engine.generate(prompt, sampling, lease.compute), 1):
        text += token.text
        yield Draft(text.strip(), count)
