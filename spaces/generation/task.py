"""Text generation, chat, and the distribution of the next token, as plain functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from shared.engines.protocols import CausalLM, GeneratedToken, Sampling
from shared.errors import InvalidInput
from shared.events import Done, Event, Partial
from shared.serving.context import Context
from shared.serving.lease import Lease
from shared.serving.requests import AnyText, Deterministic, Model, Request, Text

# A model's fields come in the order of its bases, last base first; that order is the API's.


class GenerationSettings(Request):
    """How the next tokens are drawn; shared by completion and chat."""

    max_new_tokens: int = Field(128, ge=1, le=1024, description="Stop after this many new tokens.")
    do_sample: bool = Field(False, description="Off: always the likeliest token (greedy). On: draw by probability.")
    temperature: float = Field(0.7, ge=0.05, le=3.0, description="Below 1 sharper, above 1 flatter. For sampling.")
    top_k: int = Field(50, ge=0, le=1000, description="Draw from the k likeliest tokens; 0 for all. For sampling.")
    top_p: float = Field(
        0.95, gt=0.0, le=1.0, description="Draw from the smallest set that adds up to p; 1 for all. For sampling."
    )
    repetition_penalty: float = Field(1.0, ge=0.5, le=2.0, description="Above 1: what was said becomes less likely.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The same seed and settings give the same text.")
    model: Model = ""

    @property
    def deterministic(self) -> bool:
        """Greedy decoding is. A drawn text is drawn anew: one may want to see that the same seed gives the same."""
        return not self.do_sample

    def sampling(self) -> Sampling:
        return Sampling(**self.model_dump(include=set(GenerationSettings.model_fields) - {"model"}))


class Prompted(Request):
    prompt: Text


class Generate(GenerationSettings, Prompted):
    pass


class Message(BaseModel):
    """A turn in OpenAI's format. Of what the page's chat adds to it, only the text is read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: AnyText


def plain_message(value: Any) -> Any:
    """Accepts content in parts, `[{"type": "text", "text": …}]`, as well as a string."""
    if isinstance(value, dict) and isinstance(value.get("content"), list):
        parts = value["content"]
        texts = [part.get("text", "") if isinstance(part, dict) else str(part) for part in parts]
        return {**value, "content": "".join(text for text in texts if isinstance(text, str))}
    return value


LONGEST_HISTORY = 500_000
"""Characters of all earlier turns. A dozen times what any context window here holds; the oldest are trimmed."""


class Turn(Request):
    message: Text
    history: tuple[Annotated[Message, BeforeValidator(plain_message)], ...] = Field(
        (), max_length=500, description="Earlier turns, oldest first, as OpenAI messages."
    )
    system_prompt: AnyText = Field("", max_length=8000, description="What the model is told before the first turn.")

    @field_validator("history", mode="before")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        """Before each text is looked at one by one."""
        if isinstance(value, (list, tuple)):
            size = sum(len(str(turn.get("content", ""))) if isinstance(turn, dict) else 0 for turn in value)
            if size > LONGEST_HISTORY:
                raise ValueError(f"holds {size:,} characters; at most {LONGEST_HISTORY:,} are read")
        return value


class Chat(GenerationSettings, Turn):
    pass


class NextToken(Deterministic):
    prompt: Text
    temperature: float = Field(
        1.0, ge=0.05, le=3.0, description="Divides the logits: below 1 sharper, above 1 flatter."
    )
    top_k: int = Field(0, ge=0, le=1000, description="Keep the k likeliest tokens; 0 keeps all.")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Keep the smallest set that adds up to p; 1 keeps all.")
    model: Model = ""


@dataclass(eq=False)
class Completion:
    """New text, and how sure the model was of each token of it. One and the same while it grows, at its end."""

    tokens: list[GeneratedToken]
    prompt: str = ""
    """The exact prompt the model read, template included."""
    context_used: int = 0
    """Tokens of prompt and completion."""
    context_window: int = 0
    dropped_turns: int = 0

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    def outputs(self) -> tuple[Any, ...]:
        return (self.text,)


@dataclass(frozen=True, slots=True)
class TokenChance:
    """A token's probability under the model, and after temperature, top-k and top-p (0 where those exclude it)."""

    id: int
    text: str
    before: float
    after: float


@dataclass
class Distribution:
    tokens: list[TokenChance] = field(default_factory=list)
    """The likeliest twenty, likeliest first."""
    kept: int = 0
    """Tokens that can still be drawn."""
    kept_mass: float = 0.0
    """Sum of their probabilities in the model's own distribution."""

    def outputs(self) -> tuple[Any, ...]:
        rows = [
            {"token": t.text, "id": t.id, "before": round(t.before, 6), "after": round(t.after, 6)} for t in self.tokens
        ]
        return ({"tokens": rows, "kept": self.kept, "kept_mass": round(self.kept_mass, 6)},)


# -- the tasks -------------------------------------------------------------------------------------


def generate(request: Generate, context: Context) -> Iterator[Event]:
    """Continues a prompt, token by token."""
    with (yield from context.borrow(request.model, "text-generation")) as lease:
        prompt = lease.causal_lm().tokenize(request.prompt)
        refuse_if_too_long(prompt, "prompt", lease)
        yield from stream(prompt, request.sampling(), Completion([], request.prompt), lease)


def chat(request: Chat, context: Context) -> Iterator[Event]:
    """Answers a message in a conversation. The oldest turns are dropped when the context window is full."""
    with (yield from context.borrow(request.model, "conversational")) as lease:
        prompt, dropped = fitting_prompt(request, lease)
        shown = lease.causal_lm().detokenize(prompt, special_tokens=True)
        yield from stream(prompt, request.sampling(), Completion([], shown, dropped_turns=dropped), lease)


def next_token(request: NextToken, context: Context) -> Iterator[Event]:
    """The likeliest next tokens of a prompt, before and after temperature, top-k and top-p."""
    with (yield from context.borrow(request.model, "text-generation")) as lease:
        engine = lease.causal_lm()
        prompt = engine.tokenize(request.prompt)
        refuse_if_too_long(prompt, "prompt", lease)
        logits = engine.next_token_logits(prompt, lease.compute)
        sampling = Sampling(do_sample=True, temperature=request.temperature, top_k=request.top_k, top_p=request.top_p)
        result = lease.compute(lambda: distribution(logits, sampling, engine))
        yield Done(result, lease.run_info(input_tokens=len(prompt)))


def stream(prompt: Sequence[int], sampling: Sampling, result: Completion, lease: Lease) -> Iterator[Event]:
    engine = lease.causal_lm()
    result.context_window = engine.context_window
    result.context_used = len(prompt)
    for token in engine.generate(prompt, sampling, lease.compute):
        result.tokens.append(token)
        result.context_used = len(prompt) + len(result.tokens)
        yield Partial(result)
    yield Done(result, lease.run_info(input_tokens=len(prompt), new_tokens=len(result.tokens)))


TOKENS_OF_A_TURN = 3
"""Tokens that a chat template adds to a turn at the least."""


def refuse_if_too_long(prompt: Sequence[int], name: str, lease: Lease) -> None:
    window = lease.causal_lm().context_window
    if len(prompt) >= window:
        raise InvalidInput(
            f"is {len(prompt):,} tokens long and {lease.checkpoint.id} has a context window of {window:,}; shorten it",
            field=name,
        )


def fitting_prompt(request: Chat, lease: Lease) -> tuple[list[int], int]:
    """The conversation's token ids, and how many of the oldest turns were left out so that the reply fits."""
    messages = [message.model_dump() for message in request.history]
    system = [m for m in messages if m["role"] == "system"]
    if request.system_prompt.strip():
        system.insert(0, {"role": "system", "content": request.system_prompt})
    turns = [m for m in messages if m["role"] != "system"]
    last = {"role": "user", "content": request.message}
    engine = lease.causal_lm()
    window = engine.context_window
    most = window - min(request.max_new_tokens, window // 2)
    # Newest first, and no further than the window reaches.
    dropped, used = len(turns), 0
    while dropped and used <= most:
        lease.check()
        used += len(engine.tokenize(turns[dropped - 1]["content"])) + TOKENS_OF_A_TURN
        dropped -= used <= most
    # The template adds tokens of its own, so the whole prompt is measured, and shortened until it fits.
    prompt = engine.chat_prompt([*system, *turns[dropped:], last])
    while len(prompt) > most:
        if dropped == len(turns):
            raise InvalidInput(
                f"is too long even without the earlier turns: {len(prompt):,} tokens, and {most:,} fit; shorten it",
                field="message",
            )
        dropped += 1
        prompt = engine.chat_prompt([*system, *turns[dropped:], last])
    return prompt, dropped


def distribution(logits: np.ndarray, sampling: Sampling, engine: CausalLM, top: int = 20) -> Distribution:
    """The likeliest `top` tokens of float32 logits (vocabulary,), before and after the settings."""
    import torch

    from shared.engines.search.sampling import adjusted

    # In double, or what 49,000 small numbers add up to would depend on how they are shared out among threads.
    before = torch.from_numpy(logits).double().softmax(0)
    after = adjusted(torch.from_numpy(logits), sampling).double().softmax(0)
    kept = after > 0
    values, ids = before.topk(top)
    chances = [
        TokenChance(int(i), engine.detokenize([int(i)]), float(value), float(after[i]))
        for value, i in zip(values, ids, strict=True)
    ]
    return Distribution(chances, int(kept.sum()), float(before[kept].sum()))
