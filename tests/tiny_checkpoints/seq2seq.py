"""Tiny encoder-decoder checkpoints: T5, FLAN-T5, Marian, M2M100 and small100.

Each function writes a complete folder as on the Hub: `config.json`, `generation_config.json`, `model.safetensors`
and tokenizer files of the architecture's own kind, trained on the sentences below. What a real checkpoint of that
kind has and code can stumble over is there too: T5's sentinels and padded vocabulary, Marian's two SentencePiece
models and its padding token as last id and start of the decoder, M2M100's language tokens behind the vocabulary.

The weights are random, so the outputs mean nothing; they are large enough that outputs differ with the input.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import (
    GenerationConfig,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

ENGLISH = """
The house is big and the street is small.
Where is the nearest train station?
She bought two apples and a bottle of milk.
The children are playing in the garden.
The museum opens at nine in the morning and closes at six.
My brother lives in Lisbon with his wife and three cats.
Life is like a box of chocolates.
It is raining again, and the river is rising.
We will travel to Brazil next month, if the weather is good.
He said that nothing had changed since the last time.
The library lends more games than books.
How much does it cost to send a letter abroad?
They walked along the shore until the sun went down.
Please close the window before you leave the room.
translate English to French: translate English to German: summarize:
""".strip().splitlines()

FRENCH = """
La maison est grande et la rue est petite.
Où est la gare la plus proche ?
Elle a acheté deux pommes et une bouteille de lait.
Les enfants jouent dans le jardin.
Le musée ouvre à neuf heures du matin et ferme à six heures.
Mon frère vit à Lisbonne avec sa femme et trois chats.
La vie est comme une boîte de chocolats.
Il pleut de nouveau, et la rivière monte.
Nous irons au Brésil le mois prochain, s'il fait beau.
Il a dit que rien n'avait changé depuis la dernière fois.
La bibliothèque prête plus de jeux que de livres.
Combien coûte l'envoi d'une lettre à l'étranger ?
Ils marchèrent le long du rivage jusqu'au coucher du soleil.
Veuillez fermer la fenêtre avant de quitter la pièce.
""".strip().splitlines()

OTHERS = """
Das Haus ist groß und die Straße ist klein.
Die Kinder spielen im Garten, und der Hund schläft.
O museu abre às nove horas e fecha às seis.
Casa este mare, iar strada este mică.
Дом большой, а улица маленькая.
Το σπίτι είναι μεγάλο και ο δρόμος είναι μικρός.
जीवन एक चॉकलेट बॉक्स की तरह है।
बच्चे बगीचे में खेल रहे हैं।
生活就像一盒巧克力。
孩子们在花园里玩耍。
החיים כמו קופסה של שוקולדים.
הילדים משחקים בגינה.
דאָס לעבן איז ווי אַ קעסטל שאָקאָלאַד.
الحياة مثل علبة شوكولاتة.
الأطفال يلعبون في الحديقة.
子供たちは庭で遊んでいます。
""".strip().splitlines()

T5_TASKS = {
    "summarization": {
        "early_stopping": True,
        "length_penalty": 2.0,
        "max_length": 200,
        "min_length": 30,
        "no_repeat_ngram_size": 3,
        "num_beams": 4,
        "prefix": "summarize: ",
    },
    **{
        f"translation_en_to_{code}": {
            "early_stopping": True,
            "max_length": 300,
            "num_beams": 4,
            "prefix": f"translate English to {language}: ",
        }
        for code, language in (("de", "German"), ("fr", "French"), ("ro", "Romanian"))
    },
}
"""What the config.json of T5, and of FLAN-T5 after it, says of tasks."""

MADE_UP_WORDS = 8
"""M2M100's vocabulary ends with so many rows that no text ever uses."""


def t5(folder: Path) -> None:
    """T5: one SentencePiece vocabulary, a hundred sentinels behind it, and rows beyond those up to a round number."""
    _t5(folder, Weights(3, 0.5, 0.05, 30, 4), feed_forward_proj="relu", tie_word_embeddings=True)


def flan_t5(folder: Path) -> None:
    """FLAN-T5, which is T5 1.1: a gate in the feed-forward layers, and an output matrix of its own."""
    _t5(folder, Weights(3, 0.35, 0.5, 3, 4), feed_forward_proj="gated-gelu", tie_word_embeddings=False)


def _t5(folder: Path, weights: Weights, **options: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    spm = _sentencepiece(
        [*ENGLISH, *FRENCH, *OTHERS[:4]], vocab_size=300, model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1
    )
    (folder / "spiece.model").write_bytes(spm)
    pieces = SentencePieceProcessor(model_proto=spm)
    scores = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    tokenizer = T5Tokenizer(
        vocab=[*scores, *sentinels], _spm_precompiled_charsmap=_normalization(spm), model_max_length=512
    )
    tokenizer.save_pretrained(folder)
    options |= {
        "decoder_start_token_id": 0,
        "task_specific_params": T5_TASKS,
    }
    config = T5Config(
        vocab_size=(len(scores) + 100) // 64 * 64 + 64,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        **options,
    )
    generation = GenerationConfig(decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)
    _save(T5ForConditionalGeneration(config), generation, weights, folder)


def marian(folder: Path) -> None:
    """Marian (opus-mt): the padding token is the last id, starts the decoder and is forbidden as a word."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes: dict[str, Any] = {"model_type": "unigram", "bos_id": -1, "eos_id": 0, "unk_id": 1}
    source = _sentencepiece(ENGLISH, vocab_size=150, **shapes)
    target = _sentencepiece(FRENCH, vocab_size=150, **shapes)
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    words = dict.fromkeys(["</s>", "<unk>", *_pieces(source), *_pieces(target), "<pad>"])
    vocabulary = {word: number for number, word in enumerate(words)}
    pad = vocabulary["<pad>"]
    _write_json(folder / "vocab.json", vocabulary)
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "fr", "model_max_length": 512},
    )
    config = MarianConfig(
        vocab_size=len(vocabulary),
        decoder_vocab_size=len(vocabulary),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        max_position_embeddings=512,
        activation_function="swish",
        scale_embedding=True,
        pad_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=0,
        decoder_start_token_id=pad,
    )
    generation = GenerationConfig(
        bad_words_ids=[[pad]],
        bos_token_id=0,
        decoder_start_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=0,
        max_length=512,
        num_beams=4,
        pad_token_id=pad,
        renormalize_logits=True,
    )
    _save(MarianMTModel(config), generation, Weights(78, 1.2, 0.2, 3, 4), folder)


def m2m100(folder: Path) -> None:
    """M2M100: byte-pair SentencePiece whose pieces are looked up in `vocab.json`, then a hundred language tokens."""
    _many_to_many(folder, {"tokenizer_class": "M2M100Tokenizer"}, seed=1)


def small100(folder: Path) -> None:
    """small100: M2M100's files, but a tokenizer that comes with the repository and not with transformers."""
    _many_to_many(folder, {"tokenizer_class": "SMALL100Tokenizer", "tgt_lang": None}, seed=2)


def _many_to_many(folder: Path, tokenizer: dict[str, Any], seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    spm = _sentencepiece(
        [*ENGLISH, *FRENCH, *OTHERS], vocab_size=420, model_type="bpe", unk_id=0, bos_id=1, eos_id=2, pad_id=-1
    )
    (folder / "sentencepiece.bpe.model").write_bytes(spm)
    # As with the real ones, SentencePiece knows pieces that the vocabulary does not.
    words = ["<s>", "<pad>", "</s>", "<unk>", *[piece for piece in _pieces(spm) if piece not in ("▁museum", "z", "▁H")]]
    _write_json(folder / "vocab.json", {word: number for number, word in enumerate(words)})
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "sep_token": "</s>"}
    languages = [f"__{language}__" for language in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    _write_json(folder / "special_tokens_map.json", {**special, "additional_special_tokens": languages})
    _write_json(
        folder / "tokenizer_config.json",
        {**tokenizer, **special, "language_codes": "m2m100", "num_madeup_words": MADE_UP_WORDS},
    )
    config = M2M100Config(
        vocab_size=len(words) + len(languages) + MADE_UP_WORDS,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        max_position_embeddings=1024,
        scale_embedding=True,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    generation = GenerationConfig(
        bos_token_id=0,
        decoder_start_token_id=2,
        early_stopping=True,
        eos_token_id=2,
        max_length=200,
        num_beams=5,
        pad_token_id=1,
    )
    _save(M2M100ForConditionalGeneration(config), generation, Weights(seed, 0.8, 0.1, 5, 4), folder)


@dataclass(frozen=True)
class Weights:
    """Seeded weights under which outputs vary: with the input, from token to token, and in length."""

    seed: int
    layers: float
    """Standard deviation of the layers' matrices."""
    embeddings: float
    """That of the embeddings: small beside the layers', or each token, being tied to the output, follows itself."""
    sharpness: float
    """Scale of the last normalisation, and so of the scores."""
    end: float
    """By how much the end token's row is longer than others."""


def _save(model: Any, generation: GenerationConfig, weights: Weights, folder: Path) -> None:
    torch.manual_seed(weights.seed)
    embeddings = model.get_input_embeddings().weight
    last = [module for module in model.get_decoder().modules() if "LayerNorm" in type(module).__name__][-1]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed_positions" not in name:
                parameter.normal_(0, weights.embeddings if parameter is embeddings else weights.layers)
        last.weight.fill_(weights.sharpness)
        model.get_output_embeddings().weight[generation.eos_token_id] *= weights.end
    model.generation_config = generation
    model.save_pretrained(folder)


def _sentencepiece(sentences: Sequence[str], **options: Any) -> bytes:
    """A SentencePiece model trained on `sentences`."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        hard_vocab_limit=False,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def _pieces(spm: bytes) -> list[str]:
    """What a SentencePiece model may cut a text into, its own special tokens left out."""
    pieces = SentencePieceProcessor(model_proto=spm)
    return [pieces.id_to_piece(i) for i in range(len(pieces)) if not pieces.is_control(i) and not pieces.is_unknown(i)]


def _normalization(spm: bytes) -> bytes:
    """The table by which a SentencePiece model normalises text: field 2 of its `normalizer_spec`, which is field 3.

    Read from the bytes, because the library that knows the format (protobuf) is not among our requirements.
    """
    (spec,) = [value for number, value in _fields(spm) if number == 3]
    (table,) = [value for number, value in _fields(spec) if number == 2]
    return table


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field of a protobuf message; content is empty for fields that are plain numbers."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            varint()
            yield number, b""
            continue
        size = varint() if wire == 2 else {1: 8, 5: 4}[wire]
        yield number, message[at : at + size]
        at += size


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
