"""Texts and tokens of encoder-decoder checkpoints: from texts to source tokens, and from output tokens to texts."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from shared.checkpoints.catalog import Checkpoint, Pair
from shared.engines.pretrained.loading import LOCAL
from shared.engines.seq2seq.small100 import LanguageCodeTokenizer
from shared.errors import WeightsCorrupt

WORD_START = "▁"
"""SentencePiece's mark for a space, also a token of its own."""
FILES = {
    "m2m_100": ("sentencepiece.bpe.model", "vocab.json"),
    "marian": ("source.spm", "target.spm", "vocab.json"),
}
"""Tokenizer files by type of model; others need `tokenizer.json`. Without them transformers makes up an empty one."""


class Tokenizer(Protocol):
    """A tokenizer, as the engine uses it."""

    unreadable: frozenset[int]
    """Tokens that carry nothing of the text."""

    def encode(self, text: str, pair: Pair | None = None) -> list[int]:
        """Token ids as the encoder reads them: end token included, and codes of the languages where it wants them."""
        ...

    def words(self, text: str) -> list[int]:
        """Token ids of the text alone."""
        ...

    def decode(self, ids: Sequence[int], *, special_tokens: bool = False) -> str: ...

    def first_token(self, pair: Pair) -> int | None:
        """The token that every translation of this pair starts with, if there is one."""
        ...


class FastTokenizer:
    """A tokenizer of the `tokenizers` library (T5)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.unreadable = frozenset({tokenizer.unk_token_id, tokenizer.convert_tokens_to_ids(WORD_START)})

    def encode(self, text: str, pair: Pair | None = None) -> list[int]:
        return self._tokenizer.encode(text).ids

    def words(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, special_tokens: bool = False) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=not special_tokens)

    def first_token(self, pair: Pair) -> int | None:
        return None


class MarianTokenizer:
    """Marian's tokenizer, written in Python: one SentencePiece model reads the source, another writes the target."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.unreadable = frozenset({tokenizer.unk_token_id, tokenizer.convert_tokens_to_ids(WORD_START)})

    def encode(self, text: str, pair: Pair | None = None) -> list[int]:
        return self._tokenizer(text, verbose=False).input_ids

    def words(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def decode(self, ids: Sequence[int], *, special_tokens: bool = False) -> str:
        return self._tokenizer.decode(
            list(ids),
            skip_special_tokens=not special_tokens,
            use_source_tokenizer=False,  # transformers' default is the source's
            clean_up_tokenization_spaces=False,  # the pieces say where the spaces are
        )

    def first_token(self, pair: Pair) -> int | None:
        return None


def read_tokenizer(checkpoint: Checkpoint, folder: Path) -> Tokenizer:
    """The tokenizer in a checkpoint's folder. Raises `WeightsCorrupt` when files are missing or unreadable."""
    from transformers import AutoTokenizer

    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    missing = [name for name in FILES.get(model_type, ("tokenizer.json",)) if not (folder / name).is_file()]
    if missing:
        raise WeightsCorrupt(f"the tokenizer of {checkpoint.id} is not complete: it lacks {', '.join(missing)}")
    if model_type == "m2m_100":
        return LanguageCodeTokenizer.read(folder, code_of="target" if _is_small100(checkpoint, folder) else "source")
    # It recommends a package for a normalisation of punctuation that it does not do.
    warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
    tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
    return MarianTokenizer(tokenizer) if model_type == "marian" else FastTokenizer(tokenizer)


def _is_small100(checkpoint: Checkpoint, folder: Path) -> bool:
    if checkpoint.id.endswith("small100"):
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class") == (
        "SMALL100Tokenizer"
    )
