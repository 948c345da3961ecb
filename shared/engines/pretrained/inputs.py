"""Texts as an encoder reads them: token ids with their special tokens, cut to the window, padded to a batch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from shared.errors import InvalidInput


class EncoderInputs:
    """A model's tokenizer, used by any number of threads at once, and the tensors its model takes.

    `max_tokens` is the longest input, special tokens included. `model` is None where no tensors are asked for.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer.backend_tokenizer
        taken = inspect.signature(model.forward).parameters if model is not None else ()
        self._with_types = "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in taken
        self._pad = tokenizer.pad_token_id

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens left out."""
        return [len(encoding.ids) for encoding in self.encode(texts)]

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """`tokenizers.Encoding` of each text by itself, special tokens left out."""
        return self._tokenizer.encode_batch(list(texts), add_special_tokens=False) if texts else []

    def special_tokens(self, pair: bool) -> int:
        """How many special tokens come on top of a text, or of a pair of texts."""
        return self._tokenizer.num_special_tokens_to_add(pair)

    def joined(self, first: Any, second: Any = None) -> Any:
        """One input: the encoding, or both, with special tokens. Does not cut."""
        return self._tokenizer.post_process(first, second)

    def fitting(self, inputs: Sequence[str | tuple[str, str]]) -> list[Any]:
        """One encoding an input, with special tokens; of what does not fit, the end of the first text is left out.

        Raises `InvalidInput` for a pair whose second text leaves the first no room.
        """
        texts = list(dict.fromkeys(text for one in inputs for text in ([one] if isinstance(one, str) else one)))
        # Each text is read once: one text with fifty hypotheses is the usual input.
        encodings = dict(zip(texts, self.encode(texts), strict=True))
        return [
            self._fitting(encodings[one], None)
            if isinstance(one, str)
            else self._fitting(encodings[one[0]], encodings[one[1]])
            for one in inputs
        ]

    def _fitting(self, first: Any, second: Any) -> Any:
        from tokenizers import Encoding

        special = self.special_tokens(pair=second is not None)
        room = self.max_tokens - special - (0 if second is None else len(second.ids))
        if len(first.ids) > room:
            if room < 1:
                raise InvalidInput(
                    f"the second text of a pair is {self.max_tokens - special - room:,} tokens long, and both may have "
                    f"{self.max_tokens - special:,}; shorten it"
                )
            first = Encoding.merge([first], growing_offsets=False)  # a copy, for `truncate` works in place
            first.truncate(room)
        return self.joined(first, second)

    def tensors(self, encodings: Sequence[Any]) -> dict[str, torch.Tensor]:
        """What the model takes for a batch, padded on the right to its longest; each (rows, longest), int64."""
        longest = max(len(encoding.ids) for encoding in encodings)

        def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
            return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])

        inputs = {
            "input_ids": padded([encoding.ids for encoding in encodings], self._pad),
            "attention_mask": padded([encoding.attention_mask for encoding in encodings], 0),
        }
        if self._with_types:
            inputs["token_type_ids"] = padded([encoding.type_ids for encoding in encodings], 0)
        return inputs
