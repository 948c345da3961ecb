"""The tokenizer of M2M100 and small100 agrees with transformers' own, but for whose language the encoder is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import M2M100Tokenizer
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

from shared.checkpoints.catalog import Checkpoint
from shared.engines.seq2seq.small100 import LANGUAGES, LanguageCodeTokenizer
from shared.engines.seq2seq.tokenizer import read_tokenizer
from shared.errors import WeightsCorrupt
from tests.tiny_checkpoints import seq2seq as tiny

TEXTS = [
    *tiny.ENGLISH,
    *tiny.FRENCH,
    *tiny.OTHERS,  # Hindi, Chinese, Hebrew, Yiddish, Arabic and others
    "",
    " ",
    "  two  spaces\t\n and  a line ",
    "Emoji: 🙂🎉👍🏽 and 🇨🇴",
    "ქართული ენა, ትግርኛ, ᏣᎳᎩ",
    "ﬁne ½ Ａ\u00a0b\u200bc ㎏ é",
    "zzz museum Hello",  # pieces that SentencePiece knows and the vocabulary does not
    "▁ already marked ▁",
    "\u0000\ufffd",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small100")
    tiny.small100(folder)
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return M2M100Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def m2m100(folder: Path) -> LanguageCodeTokenizer:
    return LanguageCodeTokenizer.read(folder, code_of="source")


@pytest.fixture(scope="module")
def small100(folder: Path) -> LanguageCodeTokenizer:
    return LanguageCodeTokenizer.read(folder, code_of="target")


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(m2m100: LanguageCodeTokenizer, theirs: Any, text: str) -> None:
    theirs.src_lang = "hi"
    assert m2m100.encode(text, ("hi", "fr")) == theirs(text).input_ids
    assert m2m100.words(text) == theirs(text, add_special_tokens=False).input_ids
    assert m2m100.encode(text) == theirs(text).input_ids[1:]


@settings(deadline=None)
@given(text=st.text(max_size=30).filter(lambda text: "<" not in text and "__" not in text))
def test_ids_of_any_text_are_those_of_transformers(m2m100: LanguageCodeTokenizer, theirs: Any, text: str) -> None:
    assert m2m100.words(text) == theirs(text, add_special_tokens=False).input_ids


def test_every_language_has_the_token_that_transformers_gives_it(
    m2m100: LanguageCodeTokenizer, small100: LanguageCodeTokenizer, theirs: Any
) -> None:
    assert LANGUAGES.split() == FAIRSEQ_LANGUAGE_CODES["m2m100"]
    for language in LANGUAGES.split():
        theirs.src_lang = language
        source = theirs("Life is like a box.").input_ids
        assert m2m100.encode("Life is like a box.", (language, "en")) == source
        assert m2m100.first_token(("en", language)) == theirs.get_lang_id(language) == source[0]
        # small100: the same place, but the target's language, and nothing for the decoder to start with.
        assert small100.encode("Life is like a box.", ("en", language)) == source
        assert small100.encode("Life is like a box.", ("fr", language)) == source
        assert small100.first_token(("en", language)) is None


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("special_tokens", [False, True])
def test_decoded_text_is_that_of_transformers(
    small100: LanguageCodeTokenizer, theirs: Any, text: str, special_tokens: bool
) -> None:
    ids = [2, theirs.get_lang_id("fr"), *small100.words(text), 2, 1, 1]
    expected = theirs.decode(ids, skip_special_tokens=not special_tokens)
    assert small100.decode(ids, special_tokens=special_tokens) == expected


def test_text_comes_back(small100: LanguageCodeTokenizer) -> None:
    known = [text for text in [*tiny.FRENCH, *tiny.OTHERS] if small100.unknown not in small100.words(text)]
    assert len(known) > 20
    for text in known:
        assert small100.decode(small100.encode(text, ("en", "fr"))) == text


def test_rows_beyond_the_languages_are_no_text(small100: LanguageCodeTokenizer, theirs: Any) -> None:
    made_up = theirs.get_lang_id("zu") + 3
    assert small100.decode([made_up, *small100.words("Yes"), made_up]) == small100.decode(small100.words("Yes"))
    assert small100.decode([made_up], special_tokens=True) == "<unk>"


@pytest.mark.parametrize("text", ["</s>", "__fr__", "a </s> b", "<unk>", "__zu__ <pad>"])
def test_text_that_looks_like_a_special_token_is_text(small100: LanguageCodeTokenizer, text: str) -> None:
    """A visitor cannot end the source, or name another language, from within it."""
    ids = small100.words(text)
    assert ids
    assert not {0, 1, 2} & set(ids)
    languages = {small100.encode("", ("en", language))[0] for language in LANGUAGES.split()}
    assert len(languages) == 100
    assert not languages & set(ids)


@pytest.mark.parametrize(
    ("name", "kind", "code_of"),
    [
        ("alirezamsh/small100", "m2m100", "target"),
        ("somebody/copy", "small100", "target"),
        ("facebook/m2m100_418M", "m2m100", "source"),
    ],
)
def test_which_language_is_told_depends_on_the_checkpoint(
    tmp_path: Path, name: str, kind: str, code_of: Literal["source", "target"]
) -> None:
    """By its id, or by the class that its tokenizer's config names."""
    getattr(tiny, kind)(tmp_path)
    tokenizer = read_tokenizer(Checkpoint.model_construct(id=name), tmp_path)
    expected = LanguageCodeTokenizer.read(tmp_path, code_of=code_of)
    assert tokenizer.encode("Yes.", ("en", "fr")) == expected.encode("Yes.", ("en", "fr"))
    assert tokenizer.first_token(("en", "fr")) == expected.first_token(("en", "fr"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("sentencepiece.bpe.model", b"not a model"),
        ("vocab.json", b"{"),
        ("vocab.json", b'{"<s>": 0}'),
        ("vocab.json", None),
    ],
)
def test_broken_files_are_said_to_be(folder: Path, tmp_path: Path, file: str, content: bytes | None) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    if content is None:
        (broken / file).unlink()
    else:
        (broken / file).write_bytes(content)
    with pytest.raises(WeightsCorrupt, match="vocabulary"):
        LanguageCodeTokenizer.read(broken, code_of="target")
