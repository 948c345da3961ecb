"""The base of all causal language models: tokens, the chat template, the context window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.engines.decoders.prefixes import PrefixCache
from shared.errors import InvalidInput, WeightsCorrupt


class CausalText:
    """Text in and out of a decoder."""

    def __init__(
        self, tokenizer: Any, context_window: int, *, checkpoint_id: str = "this checkpoint", system_prompt: bool = True
    ) -> None:
        self.tokenizer = tokenizer
        self.context_window = context_window
        self.chats = bool(tokenizer.chat_template)
        self.prefixes: PrefixCache[Any] = PrefixCache(0)
        """Without capacity, unless a subclass replaces it."""
        self._id, self._system_prompt = checkpoint_id, system_prompt

    def tokenize(self, text: str) -> list[int]:
        return self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def detokenize(self, ids: Sequence[int], *, special_tokens: bool = False) -> str:
        return self.tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=not special_tokens)

    def chat_prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        from jinja2 import TemplateError, TemplateSyntaxError

        if not self.chats:
            raise InvalidInput(
                f"{self._id} completes texts and was not trained to chat; choose a checkpoint for conversations",
                field="model",
            )
        if not self._system_prompt and any(message["role"] == "system" for message in messages):
            raise InvalidInput(
                f"{self._id} was trained on turns alone and has no place for a system prompt; leave it empty",
                field="system_prompt",
            )
        try:
            text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except TemplateSyntaxError as error:
            raise WeightsCorrupt(f"the chat template of {self._id} is damaged; choose another checkpoint") from error
        except TemplateError as error:  # templates refuse what they cannot write, such as two turns of one role
            raise InvalidInput(
                f"the chat template of {self._id} has no place for this conversation: {error}", field="history"
            ) from error
        return self.tokenize(text)

    def refuse_more_than_window(self, tokens: int) -> None:
        """GPT-2 has no positions after its window, and other models make no sense there."""
        if tokens > self.context_window:
            raise InvalidInput(
                f"{tokens:,} tokens are more than the context window of {self._id}, which is {self.context_window:,}; "
                "shorten the text"
            )

    @property
    def cached_bytes(self) -> int:
        """Bytes of keys and values in the prefix cache, beside the weights."""
        return self.prefixes.nbytes

    @property
    def max_cached_bytes(self) -> int:
        return self.prefixes.max_bytes

    def limit_cache(self, nbytes: int) -> None:
        self.prefixes.limit(nbytes)
