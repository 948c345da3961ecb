"""The PyTorch engine for masked language models (BERT; Devlin et al. 2019): which word stands behind a mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from shared.catalog import Checkpoint
from shared.engines import Compute, FilledToken, KeepsNothing, run_here
from shared.engines.encoder_inputs import EncoderInputs
from shared.engines.pretrained import input_window, load_pretrained, load_tokenizer, nbytes_of
from shared.errors import InvalidInput, SuiteError
from shared.events import Progress
from shared.settings import Settings

MASKS = ("[MASK]", "<mask>")
"""How BERT and RoBERTa write a mask. Either is understood, so that one text suits both."""


class TorchMaskedLM(KeepsNothing):
    """A text with masks in; for each mask its likeliest tokens out. Equals transformers' `fill-mask` pipeline."""

    name = "torch-fp32"

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int) -> None:
        self.model = model
        self.mask_token: str = tokenizer.mask_token
        self.max_tokens = max_tokens
        self.nbytes = nbytes_of(model)
        self._tokenizer = tokenizer
        self._inputs = EncoderInputs(model, tokenizer, max_tokens)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens left out; a mask is one."""
        return self._inputs.count_tokens([self._with_own_masks(text) for text in texts])

    def fill(self, text: str, top_k: int, compute: Compute = run_here) -> list[list[FilledToken]]:
        """For each mask of the text in order, its `top_k` likeliest tokens, likeliest first.

        Masks are filled independently of each other. Raises `InvalidInput` (field `text`) for a text without a mask,
        or longer than `max_tokens`.
        """
        (encoding,) = self._inputs.encode([self._with_own_masks(text)])
        encoding = self._inputs.joined(encoding)
        if len(encoding.ids) > self.max_tokens:
            raise InvalidInput(
                f"is {len(encoding.ids):,} tokens long and this model reads {self.max_tokens:,}; keep the sentences "
                f"around {self.mask_token}",
                field="text",
            )
        places = [i for i, token in enumerate(encoding.ids) if token == self._tokenizer.mask_token_id]
        if not places:
            raise InvalidInput(f"holds no mask; write {self.mask_token} where a word is to be found", field="text")
        probabilities, ids = compute(lambda: self._forward(encoding, places, top_k))
        return [
            [FilledToken(i, self._tokenizer.decode([i]), p) for i, p in zip(*row, strict=True)]
            for row in zip(ids, probabilities, strict=True)
        ]

    def _forward(self, encoding: Any, places: Sequence[int], top_k: int) -> tuple[list[list[float]], list[list[int]]]:
        """Probabilities and ids of the likeliest tokens, each (places, top_k)."""
        with torch.inference_mode():
            logits = self.model(**self._inputs.tensors([encoding])).logits[0, list(places)]
            found = logits.softmax(-1).topk(min(top_k, logits.shape[-1]))
            return found.values.tolist(), found.indices.tolist()

    def _with_own_masks(self, text: str) -> str:
        for mask in MASKS:
            text = text.replace(mask, self.mask_token)
        return text


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most."""
    return checkpoint.parameters * 4


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchMaskedLM:
    """Reads a verified folder with safetensors, `config.json` and a tokenizer. Raises as `load_pretrained` does."""
    model = load_pretrained("AutoModelForMaskedLM", checkpoint, folder, progress)
    tokenizer = load_tokenizer(checkpoint, folder, model)
    if tokenizer.mask_token_id is None:
        raise SuiteError(
            f"the tokenizer of {checkpoint.id} has no mask token, so there is nothing to fill; choose another"
        )
    return TorchMaskedLM(model, tokenizer, input_window(checkpoint, model))
