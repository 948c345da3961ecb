"""Tokenizers of the real kinds, trained on a few sentences, in the files they are published in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = """\
The capital of France is Paris, and the capital of Germany is Berlin.
I love teaching machine learning! It was a terrible, boring film and I hated it.
I have a problem with my phone that needs to be resolved as soon as possible.
This example is about sports. This example is about politics. This text is about travel.
Who wrote the book? The book was written by a woman from Santiago in 1971.
Could you tell me how to cook rice? I'm not sure, but I think you can use a rice cooker.
Once upon a time, in a galaxy far, far away, there were 3 ships and 12 moons.
A música é boa e o café está quente. La vie est belle, et le garçon mange une pêche.
El niño baila salsa, bachata, merengue, cumbia y vallenato en la plaza de Cartagena.
Der Fluß ist groß und schön. Die Straße führt über die Brücke nach München.
जीवन एक चॉकलेट बॉक्स की तरह है। 生活就像一盒巧克力。 人生は箱に入ったチョコレートのようだ。
החיים כמו קופסה של שוקולדים. Жизнь похожа на коробку шоколадных конфет.
Emoji 🙂🎉👍🏽 and maths ∑∂√ and a naïve café.
""".splitlines()

Setting = dict[str, Any]


def byte_level_bpe(
    folder: Path,
    *,
    front: Sequence[str] = (),
    back: Sequence[str] = (),
    special: Sequence[AddedToken],
    roberta: bool = False,
    digits: bool = False,
    config: Setting,
) -> dict[str, int]:
    """Byte-level BPE (Radford et al. 2019) in tokenizer.json, vocab.json and merges.txt; returns its vocabulary.

    `front` and `back` are tokens before and after those learned, `special` those of them that no text is split into;
    `roberta` puts `<s>` and `</s>` round a text, `digits` splits numbers into digits; `config` is
    tokenizer_config.json.
    """
    bytes_first = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = bytes_first  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=420, special_tokens=list(front), initial_alphabet=alphabet, show_progress=False),
    )
    learned = json.loads(learner.to_str())["model"]
    vocabulary = dict(learned["vocab"])
    for token in back:
        vocabulary[token] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(pair) for pair in learned["merges"]]))
    tokenizer.pre_tokenizer = (  # pyright: ignore[reportAttributeAccessIssue]
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_first]) if digits else bytes_first
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.add_special_tokens(list(special))
    if roberta:
        tokenizer.post_processor = processors.RobertaProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), trim_offsets=True, add_prefix_space=False
        )
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.model.save(str(folder))  # pyright: ignore[reportAttributeAccessIssue]
    _finish(folder, tokenizer, config)
    return vocabulary


def word_piece(folder: Path, config: Setting) -> dict[str, int]:
    """BERT's WordPiece (Devlin et al. 2019) in tokenizer.json and vocab.txt; returns its vocabulary."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normal = normalizers.BertNormalizer(lowercase=bool(config["do_lower_case"]))
    letters = sorted({letter for line in CORPUS for letter in normal.normalize_str(line) if letter.strip()})
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normal  # pyright: ignore[reportAttributeAccessIssue]
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    # The trainer numbers letters in the order of a hash table, unless they are there before.
    fixed = [*special, *letters, *(f"##{letter}" for letter in letters)]
    learner.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=600, special_tokens=fixed, show_progress=False)
    )
    vocabulary = learner.get_vocab()
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normal  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = learner.pre_tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.WordPiece()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    (folder / "vocab.txt").write_text(
        "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__)), encoding="utf-8"
    )
    _finish(folder, tokenizer, config)
    return vocabulary


def _finish(folder: Path, tokenizer: Tokenizer, config: Setting) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
