"""The PyTorch engine for encoder-decoder models: T5 and FLAN-T5, Marian (opus-mt), M2M100 and small100.

Reads checkpoints in Hugging Face format, in float32: T5 was trained in bfloat16 on other processors, and its sums
overflow or lose digits in half precision. Texts and tokens are in `tokenizer.py` and `translating.py`, the decoder's
steps in `decoding.py`. Each request computes by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from shared.checkpoints.catalog import Checkpoint
from shared.engines.compute import Compute, run_here
from shared.engines.pretrained.loading import load_pretrained
from shared.engines.pretrained.pieces import batches
from shared.engines.protocols import GeneratedToken, Sampling
from shared.engines.seq2seq.reference_decoding import Decoder, Sources, Written, decode, draw
from shared.engines.seq2seq.rules import Rules
from shared.engines.seq2seq.tokenizer import Tokenizer, read_tokenizer
from shared.engines.seq2seq.translating import Translating
from shared.events import Progress
from shared.settings import Settings

BATCH_LINES, BATCH_TOKENS = 32, 1024
"""Sentences times beams, and padded source tokens times beams, in one batch. Of the larger checkpoints (T5-base,
small100) keys and values of 1,024 source tokens take about 75 MB, and the scores of 32 lines over 128,000 tokens,
which beam search holds some four times, 16 MB each."""


class TorchSeq2Seq(Translating):
    """A `Seq2SeqLM`: an encoder-decoder of `transformers` in float32."""

    name = "torch-fp32"

    def __init__(self, model: Any, tokenizer: Tokenizer, checkpoint: Checkpoint) -> None:
        super().__init__(tokenizer, Rules(model.generation_config, model.config), checkpoint)
        self.model = model
        self.nbytes = sum({p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}.values())

    def generate(
        self, source: Sequence[int], sampling: Sampling, compute: Compute = run_here
    ) -> Iterator[GeneratedToken]:
        """Yields each new token as it is drawn: one step for the encoder, then one a token.

        Raises `InvalidInput` (field `text`) for a source that is empty or does not fit the context window.
        """
        self._check(source)
        # Of this request alone, so that the same seed gives the same text whatever else is running.
        randomness = torch.Generator().manual_seed(sampling.seed)
        limit = min(sampling.max_new_tokens, self.context_window)
        decoder = compute(lambda: Decoder(self.model, self.rules, Sources([source], [limit])))
        newest: torch.Tensor | None = None

        def step() -> tuple[int, float]:
            with torch.inference_mode():
                return draw(decoder.logits(newest), self.rules, decoder, sampling, randomness)

        ids: list[int] = []
        shown = ""
        for _ in range(limit):
            token, probability = compute(step)
            if token in self.rules.ends:
                return
            ids.append(token)
            newest = torch.tensor([token])
            text = self.detokenize(ids)
            yield GeneratedToken(token, text[len(shown) :], probability)
            shown = text

    def best_outputs(self, sources: Sources, num_beams: int, compute: Compute) -> list[Written]:
        found = [Written([], 0.0)] * len(sources.ids)
        lines = max(1, BATCH_LINES // num_beams)
        for batch in batches([len(ids) for ids in sources.ids], lines, BATCH_TOKENS // num_beams):
            outputs = decode(self.model, self.rules, sources.at(batch), num_beams, compute)
            for place, output in zip(batch, outputs, strict=True):
                found[place] = output
        return found


# -- loading ---------------------------------------------------------------------------------------


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory."""
    return checkpoint.parameters * 4


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchSeq2Seq:
    """Reads a verified folder of `config.json`, `model.safetensors` and tokenizer files; nothing in it is run.

    Raises as `load_pretrained` does, `WeightsCorrupt` when tokenizer files are missing, and `SuiteError` for a
    generation config that asks for what `Rules` does not do.
    """
    tokenizer = read_tokenizer(checkpoint, folder)
    return TorchSeq2Seq(load_pretrained("AutoModelForSeq2SeqLM", checkpoint, folder, progress), tokenizer, checkpoint)
