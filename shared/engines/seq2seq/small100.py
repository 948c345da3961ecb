"""The tokenizer of M2M100 (Fan et al. 2020) and of small100 (Mohammadshahi et al. 2022).

transformers has one for M2M100; small100's comes as code with its repository, and code from a checkpoint is never
run here. Both cut text with SentencePiece, look the pieces up in a vocabulary of their own, and know a hundred
languages by tokens behind that vocabulary. They differ in which language the encoder is told:

    M2M100      encoder: [source language] text </s>     decoder: </s> [target language] translation </s>
    small100    encoder: [target language] text </s>     decoder: </s> translation </s>
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sentencepiece import SentencePieceProcessor

from shared.checkpoints.catalog import Pair
from shared.errors import WeightsCorrupt

LANGUAGES = (
    "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht hu hy "
    "id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt ro ru "
    "sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu"
)
"""In the order of their tokens."""
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
WORD_START = "▁"
"""SentencePiece's mark for a space, also a piece of its own."""


class LanguageCodeTokenizer:
    """Texts of M2M100 (`code_of` "source") and small100 ("target").

    Ids are those of transformers' `M2M100Tokenizer`, but for text that looks like a special token (`</s>`, `__fr__`):
    here it is text.
    """

    def __init__(
        self, pieces: SentencePieceProcessor, vocabulary: dict[str, int], *, code_of: Literal["source", "target"]
    ) -> None:
        self._pieces = pieces
        self._ids = vocabulary
        self._code_of = code_of
        # The rows behind the languages' are made-up words that fill the vocabulary up; no text has them.
        self._languages = {language: len(vocabulary) + i for i, language in enumerate(LANGUAGES.split())}
        self._words = {i: word for word, i in vocabulary.items()}
        self._special = {vocabulary[word]: word for word in SPECIAL}
        self._special |= {i: f"__{language}__" for language, i in self._languages.items()}
        self.unknown, self.end = vocabulary["<unk>"], vocabulary["</s>"]
        self.unreadable = frozenset({self.unknown, vocabulary.get(WORD_START, self.unknown)})

    @classmethod
    def read(cls, folder: Path, *, code_of: Literal["source", "target"]) -> LanguageCodeTokenizer:
        """Reads `sentencepiece.bpe.model` and `vocab.json`. Raises `WeightsCorrupt` when one cannot be read."""
        try:
            pieces = SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            return cls(pieces, vocabulary, code_of=code_of)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise WeightsCorrupt(
                "sentencepiece.bpe.model and vocab.json are not a readable vocabulary of M2M100's kind"
            ) from error

    def encode(self, text: str, pair: Pair | None = None) -> list[int]:
        """Token ids as the encoder reads them, end token included; without a pair, without a language's code."""
        code = [] if pair is None else [self._languages[pair[0] if self._code_of == "source" else pair[1]]]
        return [*code, *self.words(text), self.end]

    def words(self, text: str) -> list[int]:
        """Token ids of the text alone."""
        return [self._ids.get(piece, self.unknown) for piece in self._pieces.encode(text, out_type=str)]

    def decode(self, ids: Sequence[int], *, special_tokens: bool = False) -> str:
        """The text of tokens; special ones, unknown and languages' included, are left out unless `special_tokens`."""
        text = ""
        run: list[str] = []
        for i in ids:
            if i in self._words and i not in self._special:
                run.append(self._words[i])
            elif special_tokens:
                text += self._pieces.decode(run) + self._special.get(i, "<unk>")
                run = []
        return (text + self._pieces.decode(run)).strip()

    def first_token(self, pair: Pair) -> int | None:
        """The token that the decoder is made to start with: M2M100's code of the target language."""
        return self._languages[pair[1]] if self._code_of == "source" else None
