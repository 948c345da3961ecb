"""The PyTorch engine for encoder-decoder models: T5 and FLAN-T5, Marian (opus-mt), M2M100 and small100.

Reads checkpoints in Hugging Face format, in float32: T5 was trained in bfloat16 on other processors, and its sums
overflow or lose their end in half precision. Texts and tokens are in `seq2seq_texts.py`, what happens in the
decoder in `seq2seq_decoding.py`; here are the three uses: a token at a time, the best of several beams, and many
sentences in batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from shared.catalog import Checkpoint, Pair
from shared.engines import Compute, GeneratedToken, KeepsNothing, Sampling, Translated, run_here
from shared.engines.marian import batches, split_long
from shared.engines.pretrained import load_pretrained
from shared.engines.seq2seq_decoding import Decoder, Rules, Written, decode
from shared.engines.seq2seq_texts import Texts, read_texts
from shared.errors import InvalidInput, UnknownCheckpoint
from shared.events import Progress
from shared.sampling import adjusted
from shared.settings import Settings

BATCH_LINES, BATCH_TOKENS = 32, 1024
"""Sentences times beams, and padded source tokens times beams, in one batch. Of the larger checkpoints (T5-base,
small100) keys and values of 1,024 source tokens take about 75 MB, and the scores of 32 lines over 128,000 tokens,
which beam search holds some four times, 16 MB each."""
MAX_LENGTH_FACTOR, LENGTH_MARGIN = 3.0, 20
"""Target tokens per source token at most, and on top: generous, since scripts that a vocabulary of a hundred languages
knows less well take more tokens than English; it only has to stop a decoder that repeats itself."""


class TorchSeq2Seq(KeepsNothing):
    """A `Seq2SeqLM`: an encoder-decoder of `transformers` in float32."""

    name = "torch-fp32"

    def __init__(self, model: Any, texts: Texts, checkpoint: Checkpoint) -> None:
        self.model = model
        self.texts = texts
        self.checkpoint = checkpoint
        self.context_window = checkpoint.context_window
        self.nbytes = sum({p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}.values())
        self.rules = Rules(model.generation_config)

    # -- text and tokens -----------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        """Token ids as the encoder reads them, end token included; of M2M100 and small100 without a language code."""
        return self.texts.encode(text)

    def detokenize(self, ids: Sequence[int], *, special_tokens: bool = False) -> str:
        return self.texts.decode(ids, special_tokens=special_tokens)

    # -- one source ----------------------------------------------------------------------------

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
        decoder = compute(lambda: Decoder(self.model, self.rules, [source], [limit]))
        newest: torch.Tensor | None = None

        def step() -> tuple[int, float]:
            with torch.inference_mode():
                logits = decoder.logits(newest)
                scores = adjusted(self.rules.allowed(logits, decoder)[0], sampling, decoder.written[0].tolist())
                if sampling.do_sample:
                    token = int(torch.multinomial(scores.softmax(0), 1, generator=randomness))
                else:
                    token = int(scores.argmax())
                return token, float(logits[0].softmax(0)[token])

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

    def beam_search(
        self, source: Sequence[int], max_new_tokens: int, num_beams: int, compute: Compute = run_here
    ) -> list[int]:
        """Token ids of the best output, end token excluded. Raises `InvalidInput` as `generate` does."""
        self._check(source)
        limit = min(max_new_tokens, self.context_window)
        (best,) = decode(self.model, self.rules, [source], [limit], num_beams, compute)
        return [token for token in best.tokens if token not in self.rules.ends]

    def _check(self, source: Sequence[int]) -> None:
        if not source:
            raise InvalidInput("is empty", field="text")
        if len(source) > self.context_window:
            raise InvalidInput(
                f"has {len(source)} tokens, and {self.checkpoint.id} reads at most {self.context_window}; shorten it",
                field="text",
            )

    # -- many sentences ------------------------------------------------------------------------

    def translate(
        self,
        sentences: Sequence[str],
        num_beams: int = 1,
        compute: Compute = run_here,
        *,
        pair: Pair | None = None,
    ) -> list[Translated]:
        """Translates in batches; the order is kept. `num_beams` 1 is greedy.

        A sentence longer than the context window is translated piece by piece, and the pieces joined by spaces. One
        in which the model can read nothing (a blank line, `...`, a script it does not know) stays as it is.
        Raises `UnknownCheckpoint` (field `tgt_lang`) for a pair that the checkpoint does not translate.
        """
        pair = self._pair(pair)
        prepared = [self._prepare(sentence, pair) for sentence in sentences]
        sources = [ids for pieces in prepared for ids in pieces]
        found = [Written([], 0.0)] * len(sources)
        first = self.texts.first_token(pair)
        lines = max(1, BATCH_LINES // num_beams)
        for batch in batches([len(ids) for ids in sources], lines, BATCH_TOKENS // num_beams):
            chosen = [sources[place] for place in batch]
            limits = [min(target_limit(len(ids)), self.context_window) for ids in chosen]
            outputs = decode(self.model, self.rules, chosen, limits, num_beams, compute, first)
            for place, output in zip(batch, outputs, strict=True):
                found[place] = output
        in_order = iter(found)
        return [
            self._join(sentence, pieces, list(islice(in_order, len(pieces))))
            for sentence, pieces in zip(sentences, prepared, strict=True)
        ]

    def _pair(self, pair: Pair | None) -> Pair:
        """The pair asked for, or the only one there is."""
        checkpoint = self.checkpoint
        if pair is None and len(checkpoint.pairs) == 1 and not checkpoint.any_pair:
            return checkpoint.pairs[0]
        if pair is not None and checkpoint.translates(pair):
            return pair
        if checkpoint.any_pair:
            offered = f"it translates between any two of {', '.join(checkpoint.languages)}"
        else:
            pairs = ", ".join(f"{source} to {target}" for source, target in checkpoint.pairs)
            offered = f"it translates {pairs}" if pairs else "it does not translate"
        asked = f"does not translate from {pair[0]} to {pair[1]}" if pair else "must be told the languages"
        raise UnknownCheckpoint(f"{checkpoint.id} {asked}; {offered}", field="tgt_lang")

    def _prepare(self, sentence: str, pair: Pair) -> list[list[int]]:
        """Source tokens of a sentence: in one piece if it fits, in several if not, in none if nothing is readable."""
        readable = any(map(str.isalnum, sentence)) and not self.texts.unreadable.issuperset(self.texts.words(sentence))
        if not readable:
            return []
        prefix = self.checkpoint.prefixes.get("-".join(pair), "")
        whole = self.texts.encode(prefix + sentence, pair)
        if len(whole) <= self.context_window:
            return [whole]
        room = self.context_window - len(self.texts.encode(prefix, pair))
        parts = split_long(sentence.split(), room, lambda words: [len(self.texts.words(word)) for word in words])
        return [self.texts.encode(prefix + part, pair) for part in parts]

    def _join(self, sentence: str, pieces: list[list[int]], outputs: list[Written]) -> Translated:
        new_tokens = sum(len(output.tokens) for output in outputs)
        texts = [self.detokenize(output.tokens).strip() for output in outputs]
        return Translated(
            text=" ".join(filter(None, texts)) if pieces else " ".join(sentence.split()),
            input_tokens=sum(map(len, pieces)),
            new_tokens=new_tokens,
            log_probability=sum(output.log_probability for output in outputs) / max(new_tokens, 1),
        )


def target_limit(source_tokens: int) -> int:
    """Most target tokens for a source of so many."""
    return math.ceil(MAX_LENGTH_FACTOR * source_tokens) + LENGTH_MARGIN


# -- loading ---------------------------------------------------------------------------------------


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory."""
    return checkpoint.parameters * 4


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchSeq2Seq:
    """Reads a verified folder of `config.json`, `model.safetensors` and tokenizer files; nothing in it is run.

    Raises as `load_pretrained` does, `WeightsCorrupt` when tokenizer files are missing, and `SuiteError` for a
    generation config that asks for what `Rules` does not do.
    """
    texts = read_texts(checkpoint, folder)
    return TorchSeq2Seq(load_pretrained("AutoModelForSeq2SeqLM", checkpoint, folder, progress), texts, checkpoint)
