"""The PyTorch engine for masked language models (BERT; Devlin et al. 2019): which word stands behind a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.checkpoints.catalog import Checkpoint
from shared.engines.compute import Compute, run_here
from shared.engines.pretrained.inputs import EncoderInputs
from shared.engines.pretrained.loading import load_text_model, nbytes_of
from shared.engines.pretrained.padded_batches import text_batches
from shared.engines.protocols import FilledToken, NoCache
from shared.errors import InvalidInput, SuiteError
from shared.events import Progress
from shared.settings import Settings

MASKS = ("[MASK]", "<mask>")
"""How BERT and RoBERTa write a mask. Either is understood, so that one text suits both."""

STEP_SCORES = 16_000_000
"""Scores of one step, 64 MB: every token gets one for each of the vocabulary, whether it is masked or not."""


@dataclass(frozen=True, slots=True, eq=False)
class Masked:
    """A text as the model reads it, the places of its masks, and how many tokens are asked for at each."""

    encoding: Any
    places: Sequence[int]
    top_k: int


class TorchMaskedLM(NoCache):
    """A text with masks in; for each mask its likeliest tokens out. Equals transformers' `fill-mask` pipeline."""

    name = "torch-fp32"

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int) -> None:
        self.model = model
        self.mask_token: str = tokenizer.mask_token
        self.max_tokens = max_tokens
        self.nbytes = nbytes_of(model)
        self._tokenizer = tokenizer
        self._inputs = EncoderInputs(model, tokenizer, max_tokens)
        self.batches = text_batches(
            model,
            self._inputs,
            self._forward,
            lambda text: len(text.encoding.ids),
            most=STEP_SCORES // model.get_input_embeddings().num_embeddings,
        )

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
        ((probabilities, ids),) = self.batches.results([Masked(encoding, places, top_k)], compute)
        return [
            [FilledToken(i, self._tokenizer.decode([i]), p) for i, p in zip(*row, strict=True)]
            for row in zip(ids, probabilities, strict=True)
        ]

    def _forward(self, texts: Sequence[Masked]) -> list[tuple[list[list[float]], list[list[int]]]]:
        """Of each text, probabilities and ids of the likeliest tokens, each (places, top_k)."""
        logits = self.model(**self._inputs.tensors([text.encoding for text in texts])).logits
        results = []
        for row, text in zip(logits, texts, strict=True):
            found = row[list(text.places)].softmax(-1).topk(min(text.top_k, row.shape[-1]))
            results.append((found.values.tolist(), found.indices.tolist()))
        return results

    def _with_own_masks(self, text: str) -> str:
        for mask in MASKS:
            text = text.replace(mask, self.mask_token)
        return text


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most."""
    return checkpoint.parameters * 4


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchMaskedLM:
    """Reads a verified folder. Raises as `load_text_model` does, and `SuiteError` for a tokenizer without masks."""
    model, tokenizer, max_tokens = load_text_model("AutoModelForMaskedLM", checkpoint, folder, progress)
    if tokenizer.mask_token_id is None:
        raise SuiteError(
            f"the tokenizer of {checkpoint.id} has no mask token, so there is nothing to fill; choose another"
        )
    return TorchMaskedLM(model, tokenizer, max_tokens)
