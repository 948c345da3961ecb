"""Tiny encoders: text classification, masks, question answering, audio classification."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from tests.tiny_checkpoints.vocabulary import byte_level_bpe, word_piece
from tests.tiny_checkpoints.weights import seeded

GENRES = ("Bachata", "Cumbia", "Merengue", "Salsa", "Vallenato")

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def roberta_mnli(folder: Path, labels: Sequence[str] = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")) -> Path:
    """As roberta-large-mnli: pairs of texts, 514 positions for 512 tokens."""
    from transformers import RobertaForSequenceClassification

    return _roberta(folder, RobertaForSequenceClassification, 1, **_labelled(labels))


def bart_order_mnli(folder: Path) -> Path:
    """Entailment with its labels in another order, as some checkpoints have it."""
    return roberta_mnli(folder, ("entailment", "neutral", "contradiction"))


def roberta_mlm(folder: Path) -> Path:
    """As distilroberta-base: masks are written `<mask>`."""
    from transformers import RobertaForMaskedLM

    return _roberta(folder, RobertaForMaskedLM, 2)


def roberta_qa(folder: Path) -> Path:
    """As roberta-base fine-tuned on SQuAD."""
    from transformers import RobertaForQuestionAnswering

    return _roberta(folder, RobertaForQuestionAnswering, 3)


def distilbert_sst2(folder: Path) -> Path:
    """As distilbert-base-uncased fine-tuned on SST-2: NEGATIVE and POSITIVE."""
    from transformers import DistilBertForSequenceClassification

    return _distilbert(folder, DistilBertForSequenceClassification, 4, **_labelled(("NEGATIVE", "POSITIVE")))


def distilbert_qa(folder: Path) -> Path:
    """As distilbert-base-cased distilled on SQuAD: capitals matter."""
    from transformers import DistilBertForQuestionAnswering

    return _distilbert(folder, DistilBertForQuestionAnswering, 12, lower=False)


def convbert_sst2(folder: Path) -> Path:
    """As ConvBERT fine-tuned on sentiment: its convolutions read what stands beside a token, padding too."""
    from transformers import ConvBertConfig, ConvBertForSequenceClassification

    vocabulary = word_piece(
        _made(folder), {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    )
    config = ConvBertConfig(
        vocab_size=len(vocabulary),
        embedding_size=32,
        pad_token_id=vocabulary["[PAD]"],
        **SIZES,
        **_labelled(("NEGATIVE", "POSITIVE")),
    )
    return _saved(ConvBertForSequenceClassification(config), folder, 11)


def bert_mlm(folder: Path) -> Path:
    """As bert-base-uncased: masks are written `[MASK]`."""
    from transformers import BertForMaskedLM

    return _bert(folder, BertForMaskedLM, 5)


def tiny_bert(folder: Path) -> Path:
    """As BERT before any task, of a width that four-bit weights can be computed in: a multiple of 64."""
    from transformers import BertForMaskedLM

    return _bert(folder, BertForMaskedLM, 9, hidden_size=64)


def bert_qa(folder: Path) -> Path:
    """As BERT fine-tuned on SQuAD."""
    from transformers import BertForQuestionAnswering

    return _bert(folder, BertForQuestionAnswering, 6)


def wav2vec2_genres(folder: Path) -> Path:
    """As wav2vec2-base fine-tuned on five Latin genres; 16 kHz."""
    from transformers import Wav2Vec2ForSequenceClassification

    return _wav2vec2(folder, Wav2Vec2ForSequenceClassification, 7, **_labelled(GENRES))


def wav2vec2_masked(folder: Path) -> Path:
    """As wav2vec2-large-robust fine-tuned: features normalised one by one, and a mask over the padding."""
    from transformers import Wav2Vec2ForSequenceClassification

    more: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    return _wav2vec2(folder, Wav2Vec2ForSequenceClassification, 10, **more, **_labelled(GENRES))


def wav2vec2_base(folder: Path) -> Path:
    """As wav2vec2-base: pre-trained to tell true from false frames, with no head for labels."""
    from transformers import Wav2Vec2ForPreTraining

    return _wav2vec2(folder, Wav2Vec2ForPreTraining, 8, proj_codevector_dim=16, codevector_dim=16)


# -- the architectures -----------------------------------------------------------------------------


def _roberta(folder: Path, architecture: Any, seed: int, **more: Any) -> Path:
    from transformers import RobertaConfig

    vocabulary = byte_level_bpe(
        _made(folder),
        front=["<s>", "<pad>", "</s>", "<unk>"],
        back=["<mask>"],
        special=[
            *(AddedToken(token, special=True) for token in ("<s>", "<pad>", "</s>", "<unk>")),
            AddedToken("<mask>", lstrip=True, special=True),  # the space before a mask is part of it
        ],
        roberta=True,
        config={"model_max_length": 512},
    )
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=514,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        **SIZES,
        **more,
    )
    return _saved(architecture(config), folder, seed)


def _distilbert(folder: Path, architecture: Any, seed: int, lower: bool = True, **more: Any) -> Path:
    from transformers import DistilBertConfig

    vocabulary = word_piece(_made(folder), {"do_lower_case": lower, "model_max_length": 512})
    config = DistilBertConfig(
        vocab_size=len(vocabulary),
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=512,
        pad_token_id=vocabulary["[PAD]"],
        **more,
    )
    return _saved(architecture(config), folder, seed)


def _bert(folder: Path, architecture: Any, seed: int, **more: Any) -> Path:
    from transformers import BertConfig

    vocabulary = word_piece(
        _made(folder), {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=512,
        pad_token_id=vocabulary["[PAD]"],
        **{**SIZES, **more},
    )
    return _saved(architecture(config), folder, seed)


def _wav2vec2(folder: Path, architecture: Any, seed: int, **more: Any) -> Path:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

    config = Wav2Vec2Config(
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        num_codevectors_per_group=8,
        classifier_proj_size=16,
        **SIZES,
        **more,
    )
    features = Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=16_000,
        padding_value=0.0,
        do_normalize=True,
        return_attention_mask=config.feat_extract_norm == "layer",
    )
    features.save_pretrained(_made(folder))
    return _saved(architecture(config), folder, seed)


def _labelled(labels: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _saved(model: Any, folder: Path, seed: int) -> Path:
    seeded(model, seed).save_pretrained(folder)
    return folder
