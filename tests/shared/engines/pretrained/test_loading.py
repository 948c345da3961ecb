"""Folders that are incomplete, damaged or hostile: each is refused in plain words, and nothing of them is run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.engines.encoders import sequence_classifier
from shared.engines.encoders.sequence_classifier import TorchSequenceClassifier
from shared.engines.pretrained.loading import input_window, load_pretrained, load_tokenizer, read_config
from shared.errors import SuiteError, WeightsCorrupt
from shared.settings import Settings
from tests.tiny_checkpoints import decoders, encoders
from tests.tiny_checkpoints.encoders import bert_mlm, bert_qa, distilbert_sst2, roberta_mnli
from tests.tiny_checkpoints.entry import entry
from tests.tiny_checkpoints.weights import INDEX, SINGLE, as_pytorch_bin, renamed, sharded

TINY = entry(id="tiny-one")
TEXTS = [("A text.", "Another text."), ("Salsa!", "")]

MAKERS: list[Callable[[Path], Path]] = [
    encoders.roberta_mnli,
    encoders.bart_order_mnli,
    encoders.roberta_mlm,
    encoders.roberta_qa,
    encoders.distilbert_sst2,
    encoders.bert_mlm,
    encoders.bert_qa,
    encoders.wav2vec2_genres,
    encoders.wav2vec2_base,
    decoders.gpt2,
    decoders.dialogpt,
    decoders.llama_chat,
]


def silent(what: str, done: int, total: int) -> None:
    return


def load(folder: Path) -> TorchSequenceClassifier:
    return sequence_classifier.load(TINY, folder, Settings(), silent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return roberta_mnli(tmp_path / "weights")


def refused(folder: Path, kind: type[SuiteError], *words: str) -> str:
    """What is said of the folder: it names the checkpoint and holds `words`, but says nothing of our machine."""
    with pytest.raises(SuiteError) as error:
        load(folder)
    assert type(error.value) is kind
    message = error.value.message
    assert "tiny-one" in message
    assert str(folder) not in message
    for word in words:
        assert word in message
    return message


def changed(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


# -- what the tests stand on -------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_tiny_checkpoints_are_the_same_each_time(make: Callable[[Path], Path], tmp_path: Path) -> None:
    first, second = make(tmp_path / "first"), make(tmp_path / "second")
    files = sorted(file.name for file in first.iterdir())
    assert {"config.json", "model.safetensors"} <= set(files) == {file.name for file in second.iterdir()}
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_weights_in_several_files_are_read(folder: Path) -> None:
    expected = load(folder).logits(TEXTS)
    sharded(folder, 3)
    assert not (folder / SINGLE).exists()
    np.testing.assert_allclose(load(folder).logits(TEXTS), expected, atol=1e-5)


def test_every_weight_is_the_files(folder: Path) -> None:
    """None is drawn at random, none is left out, whatever the seed of the process."""
    torch.manual_seed(1)
    model = load(folder).model
    stored = load_file(folder / SINGLE)
    assert stored.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, stored[name], rtol=0, atol=0)


def test_progress_is_told_before_reading(folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    sequence_classifier.load(TINY, folder, Settings(), lambda *what: told.append(what))
    assert told == [("reading weights", 0, TINY.parameters * 4)]


# -- weights -----------------------------------------------------------------------------------------


def test_no_weights(folder: Path) -> None:
    (folder / SINGLE).unlink()
    refused(folder, WeightsCorrupt, "holds no model.safetensors")


def test_a_pickle_is_never_read(folder: Path) -> None:
    as_pytorch_bin(folder)
    assert torch.load(folder / "pytorch_model.bin", weights_only=True)  # it is one that could be read
    refused(folder, WeightsCorrupt, "pickle", ".bin", "model.safetensors")


def test_a_missing_part(folder: Path) -> None:
    sharded(folder, 3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    refused(folder, WeightsCorrupt, "of 3 files 1 are missing", "model-00002-of-00003.safetensors")


def test_an_index_without_files(folder: Path) -> None:
    (folder / SINGLE).unlink()
    for content in ('{"weight_map": {}}', '{"weight_map": [1]}', "{}", "[]", "not json"):
        (folder / INDEX).write_text(content)
        refused(folder, WeightsCorrupt)


def test_an_index_that_points_elsewhere(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere.safetensors"
    (folder / SINGLE).rename(elsewhere)
    names = list(load_file(elsewhere))
    for place in ("../elsewhere.safetensors", str(elsewhere)):
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, place)}))
        with pytest.raises(WeightsCorrupt, match="incomplete"):
            load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -5000])
def test_weights_cut_short(folder: Path, keep: int) -> None:
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[:keep])
    refused(folder, WeightsCorrupt, "damaged or cut short")


def test_something_else_in_the_place_of_the_weights(folder: Path) -> None:
    for content in (b"PK\x03\x04" + b"\0" * 200, b"\x80\x04." * 50, b"\xff" * 64):
        (folder / SINGLE).write_bytes(content)
        refused(folder, WeightsCorrupt)


def test_no_head(tmp_path: Path) -> None:
    refused(distilbert_sst2_without(tmp_path, r"^(pre_)?classifier\..*"), WeightsCorrupt, "fine-tuned first")
    refused(bert_mlm(tmp_path / "mlm"), WeightsCorrupt, "not trained for text classification", "classifier.bias")
    refused(bert_qa(tmp_path / "qa"), WeightsCorrupt, "not trained for text classification", "classifier.weight")


def test_half_a_head(tmp_path: Path) -> None:
    found = refused(distilbert_sst2_without(tmp_path, r"^pre_classifier\.weight"), WeightsCorrupt, "fine-tuned first")
    assert "lack pre_classifier.weight." in found


def test_a_layer_is_missing(tmp_path: Path) -> None:
    folder = distilbert_sst2_without(tmp_path, r".*layer\.1\.ffn.*")
    refused(folder, WeightsCorrupt, "incomplete", "layer.1.ffn", "and 1 more", "tell its owner")


def distilbert_sst2_without(tmp_path: Path, names: str) -> Path:
    return renamed(distilbert_sst2(tmp_path / re.sub(r"\W", "", names)), {names: ""})


def test_weights_of_another_shape(folder: Path) -> None:
    weights = load_file(folder / SINGLE)
    weights["classifier.out_proj.weight"] = torch.zeros(2, 32)
    save_file(weights, folder / SINGLE, metadata={"format": "pt"})
    refused(folder, WeightsCorrupt, "do not fit its config.json")


def test_the_names_that_bert_was_published_with_are_read(tmp_path: Path) -> None:
    """bert-base-uncased calls its LayerNorm's parameters gamma and beta."""
    new, old = bert_mlm(tmp_path / "new"), bert_mlm(tmp_path / "old")
    renamed(old, {r"LayerNorm\.weight$": "LayerNorm.gamma", r"LayerNorm\.bias$": "LayerNorm.beta"})
    assert any(name.endswith("gamma") for name in load_file(old / SINGLE))
    first, second = (load_pretrained("AutoModelForMaskedLM", TINY, folder, silent) for folder in (new, old))
    for (name, one), (_, other) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(one, other), name


# -- config.json -------------------------------------------------------------------------------------


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, WeightsCorrupt, "holds no config.json")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null"])
def test_a_damaged_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, WeightsCorrupt, "config.json", "not a JSON object")


@pytest.mark.parametrize("value", ["mamba9", None, 3, ["roberta"]])
def test_an_architecture_that_transformers_does_not_know(folder: Path, value: Any) -> None:
    refused(changed(folder, model_type=value), SuiteError, repr(value), "does not know", "transformers")


def test_an_architecture_without_such_a_head(tmp_path: Path) -> None:
    refused(encoders.wav2vec2_genres(tmp_path), SuiteError, "'wav2vec2'", "text classification")


@pytest.mark.parametrize("changes", [{"hidden_size": "wide"}, {"num_attention_heads": 5}, {"vocab_size": -3}])
def test_values_that_make_no_model(folder: Path, changes: dict[str, Any]) -> None:
    refused(changed(folder, **changes), WeightsCorrupt, "config.json")


def test_code_of_a_checkpoint_is_not_run(folder: Path) -> None:
    trace = folder.parent / "was-run"
    (folder / "hostile.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Config: ...\nclass Model: ...\n")
    own = {"AutoConfig": "hostile.Config", "AutoModelForSequenceClassification": "hostile.Model"}
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = {**settings, "auto_map": {"AutoTokenizer": ["hostile.Model", "hostile.Model"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    expected = roberta_mnli(folder.parent / "plain")
    found = load(changed(folder, auto_map=own)).logits(TEXTS)
    np.testing.assert_allclose(found, load(expected).logits(TEXTS), atol=1e-5)
    refused(changed(folder, model_type="hostile"), SuiteError, "'hostile'")
    assert not trace.exists()


# -- the tokenizer -----------------------------------------------------------------------------------


def test_no_tokenizer(folder: Path) -> None:
    """transformers makes one of five tokens then, and reads every text as unknown."""
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    refused(folder, WeightsCorrupt, "no tokenizer", "tokenizer.json", "vocab.json", "merges.txt")


def test_half_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "merges.txt").unlink()
    refused(folder, WeightsCorrupt, "tokenizer")
    bert = distilbert_sst2(tmp_path / "bert")
    (bert / "tokenizer.json").unlink()
    (bert / "vocab.txt").unlink()
    refused(bert, WeightsCorrupt, "vocab.txt")


@pytest.mark.parametrize("content", ["", "{}", '{"model": 3}', "not json"])
def test_a_damaged_tokenizer(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    refused(folder, WeightsCorrupt, "tokenizer")


def test_the_tokenizer_of_a_larger_model(folder: Path, tmp_path: Path) -> None:
    other = distilbert_sst2(tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((other / name).read_bytes())
    refused(folder, WeightsCorrupt, "more tokens than the 421", "do not belong together")


def test_the_tokenizer_is_the_files_to_the_letter(tmp_path: Path) -> None:
    """A Llama that names GPT2Tokenizer, as SmolLM2 does, still splits numbers into digits."""
    folder = decoders.llama_chat(tmp_path)
    model = load_pretrained("AutoModelForCausalLM", TINY, folder, silent)
    tokenizer = load_tokenizer(TINY, folder, model)
    assert tokenizer.backend_tokenizer.encode("in 1971.").tokens == ["in", "Ġ", "1", "9", "7", "1", "."]
    assert tokenizer.eos_token_id == 2
    assert tokenizer.chat_template == decoders.CHAT_ML


def test_cutting_and_padding_that_a_tokenizer_file_brings_are_off(folder: Path) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    expected = load(folder).logits(TEXTS)
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 1,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    file.write_text(json.dumps(content))
    engine = load(folder)
    assert engine.count_tokens(["one two three four five six seven"])[0] > 6
    np.testing.assert_allclose(engine.logits(TEXTS), expected, atol=1e-5)


def test_positions_before_the_first_are_not_counted(tmp_path: Path) -> None:
    for make, positions, tokens in ((roberta_mnli, 514, 512), (distilbert_sst2, 512, 512)):
        folder = make(tmp_path / make.__name__)
        assert read_config(TINY, folder).max_position_embeddings == positions
        model = load_pretrained("AutoModelForSequenceClassification", TINY, folder, silent)
        assert input_window(entry(context_window=100_000), model) == tokens
        assert input_window(entry(context_window=100), model) == 100
