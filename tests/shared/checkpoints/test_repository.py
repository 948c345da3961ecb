"""Which files of a repository are wanted, and which repositories are refused."""

from __future__ import annotations

import hashlib
import io
import json
import random
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.checkpoints.repository import (
    LARGEST_SMALL,
    WantedFile,
    has_tokenizer,
    parsed_config,
    refuse_named_code,
    refuse_path_tricks,
    refuse_remote_code,
    stated_files,
    wanted_files,
)
from shared.errors import SuiteError, UnknownCheckpoint, WeightsCorrupt

REPO = "user/tiny"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
PICKLES = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]


def wanted(*names: str) -> list[str]:
    return [file.name for file in wanted_files([WantedFile(name, 10) for name in names], REPO)]


# -- what is wanted --------------------------------------------------------------------------------


def test_configuration_tokenizer_and_weights_and_nothing_else() -> None:
    there = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    there += ["merges.txt", "source.spm", "spiece.model", "chat_template.jinja", "preprocessor_config.json"]
    not_ours = ["README.md", "modeling_tiny.py", "tf_model.h5", "flax_model.msgpack", "model.onnx", "training_args.bin"]
    not_ours += ["adapter_model.safetensors", "optimizer.pt", ".gitattributes", "image.png", "tokenizer.model.py"]
    found = wanted(*there, *not_ours, "model.safetensors", "pytorch_model.bin")
    assert sorted(found) == sorted([*there, "model.safetensors"])


def test_nothing_in_a_sub_folder() -> None:
    inside = [
        "onnx/model.onnx",
        "original/tokenizer.model",
        "sub/config.json",
        "1_Pooling/config.json",
        "a/b/source.spm",
    ]
    assert wanted("config.json", "model.safetensors", "tokenizer.json", *inside) == [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
    ]


def test_the_smallest_come_first_and_weights_last() -> None:
    sizes = {"config.json": 5, "vocab.json": 900, "tokenizer.json": 3, "model.safetensors": 1}
    found = wanted_files([WantedFile(name, size) for name, size in sizes.items()], REPO)
    assert [file.name for file in found] == ["tokenizer.json", "config.json", "vocab.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("weights", "taken"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        ([*SHARDS, "model.safetensors.index.json", "pytorch_model.bin"], [*SHARDS, "model.safetensors.index.json"]),
        (["model.safetensors", *SHARDS, "model.safetensors.index.json"], ["model.safetensors"]),
        (["pytorch_model.bin", "tf_model.h5"], ["pytorch_model.bin"]),
        ([*PICKLES, "pytorch_model.bin.index.json"], [*PICKLES, "pytorch_model.bin.index.json"]),
        (["pytorch_model.bin", *SHARDS], ["pytorch_model.bin"]),  # shards without an index are of no use
        (
            [*SHARDS, "model.safetensors.index.json", "model-00001-of-00003.safetensors"],  # of an older upload
            [*SHARDS, "model.safetensors.index.json"],
        ),
    ],
)
def test_weights_once_and_safetensors_first(weights: list[str], taken: list[str]) -> None:
    assert sorted(wanted("config.json", *weights)) == sorted(["config.json", *taken])


@pytest.mark.parametrize("missing", SHARDS)
def test_a_missing_shard(missing: str) -> None:
    there = [name for name in SHARDS if name != missing]
    with pytest.raises(WeightsCorrupt, match=r"user/tiny is not whole: .*index\.json is there, and 1 of its 2 shards"):
        wanted("config.json", "model.safetensors.index.json", *there)
    with pytest.raises(WeightsCorrupt, match="0 of its unknown number of shards"):
        wanted("config.json", "model.safetensors.index.json")


@pytest.mark.parametrize("others", [["tf_model.h5"], ["model.gguf"], ["onnx/model.onnx"], ["weights.ckpt", "a.pt"]])
def test_no_weights_that_are_read(others: list[str]) -> None:
    with pytest.raises(UnknownCheckpoint, match=r"neither model\.safetensors nor pytorch_model\.bin .*other formats"):
        wanted("config.json", "tokenizer.json", *others)


def test_no_config() -> None:
    with pytest.raises(UnknownCheckpoint, match=r"no config\.json"):
        wanted("model.safetensors")


def test_a_configuration_is_small() -> None:
    with pytest.raises(WeightsCorrupt, match=r"config\.json of user/tiny is far too large"):
        wanted_files([WantedFile("config.json", LARGEST_SMALL + 1), WantedFile("model.safetensors", 10)], REPO)


def test_tokenizers() -> None:
    for name in ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "source.spm", "sentencepiece.bpe.model"):
        assert has_tokenizer(["config.json", name])
    assert not has_tokenizer(["config.json", "tokenizer_config.json", "special_tokens_map.json", "merges.txt"])


# -- path tricks -----------------------------------------------------------------------------------

TRICKS = ["../config.json", "a/../../b", "/etc/hosts", "..\\x", "C:\\x", "c:x", "a\0b", "..", "a/..", "\\\\host\\x"]


@pytest.mark.parametrize("name", TRICKS)
def test_path_tricks_are_refused(name: str) -> None:
    with pytest.raises(SuiteError, match="was refused: it names a file outside its folder"):
        wanted("config.json", "model.safetensors", name)


@given(st.lists(st.sampled_from(["..", ".", "a", "~", "", "..a", "C:", "a.model", "\\", "\0", "\n"]), max_size=6))
def test_what_is_wanted_stays_in_its_folder(parts: list[str]) -> None:
    """Whatever a repository names, each file that is wanted lies in the folder itself, under its own name."""
    name = "/".join(parts)
    try:
        found = wanted("config.json", "model.safetensors", name)
    except SuiteError:
        return
    for one in found:
        assert PurePosixPath(one).name == one
        assert Path("/some/folder", one).resolve().parent == Path("/some/folder")


@given(st.text(max_size=20))
def test_any_name_is_refused_or_harmless(name: str) -> None:
    try:
        refuse_path_tricks(name, REPO)
    except SuiteError:
        return
    assert Path("/some/folder", name).resolve().is_relative_to("/some/folder")


# -- hashes ----------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_both_kinds_of_hash(content: bytes) -> None:
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    for digest in (git, hashlib.sha256(content).hexdigest()):
        file = WantedFile("x", len(content), digest)
        assert file.is_right(io.BytesIO(content))
        assert not file.is_right(io.BytesIO(content + b"!"))
        assert not file.is_right(io.BytesIO(content[:-1] + b"\xff\xfe"))


@pytest.mark.parametrize("digest", ["", "../../../x", "../" * 21 + "x", "A" * 64, "0" * 63, "g" * 40])
def test_a_hash_is_stated_and_is_one(digest: str) -> None:
    """It becomes a file's name, so a Hub's answer must not choose where that lies."""
    files = [WantedFile("config.json", 10, "0" * 40), WantedFile("model.safetensors", 10, digest)]
    with pytest.raises(WeightsCorrupt, match=r"states no hash for model\.safetensors of user/tiny"):
        stated_files(files, REPO, wanted_files)


# -- configurations --------------------------------------------------------------------------------

HARMLESS: list[dict[str, Any]] = [
    {},
    {"auto_map": {}, "model_type": "bert"},
    {"auto_map": None, "attn_implementation": "sdpa", "_name_or_path": "user/other"},
    {"id2label": {"0": "and/or"}},
]
NAMING_CODE: list[dict[str, Any]] = [
    {"auto_map": {"AutoModel": "modeling_x.X"}},
    {"auto_map": {"AutoTokenizer": ["user/other--tokenization_x.X", None]}},
    {"text_config": {"auto_map": {"AutoConfig": "configuration_x.X"}}},
    {"layers": [{"auto_map": {"AutoModel": "x.X"}}]},
    {"attn_implementation": "user/kernel"},
    {"_attn_implementation": "user/kernel:function"},
    {"attn_implementation": {"": "sdpa", "text_config": "user/kernel"}},
    {"text_config": {"_experts_implementation": "user/kernel"}},
]


@pytest.mark.parametrize("content", HARMLESS)
def test_a_configuration_that_names_no_code(content: dict[str, Any]) -> None:
    refuse_named_code(content, "config.json", REPO)


@pytest.mark.parametrize("content", NAMING_CODE)
def test_a_configuration_that_names_code(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(content))
    with pytest.raises(SuiteError, match=r"user/tiny was refused: its tokenizer_config\.json asks to run code .*never"):
        refuse_remote_code(tmp_path / "tokenizer_config.json", REPO)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b'"text"', b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000],
)
def test_what_is_no_configuration(content: bytes) -> None:
    with pytest.raises(WeightsCorrupt, match=r"config\.json of user/tiny is damaged: .* choose another checkpoint"):
        parsed_config(content, "config.json", REPO)


def test_deep_nesting_is_read_to_the_bottom() -> None:
    content: dict[str, Any] = {"auto_map": {"AutoModel": "x.X"}}
    for _ in range(50_000):
        content = {"a": [content]}
    with pytest.raises(SuiteError, match="was refused"):
        refuse_named_code(content, "config.json", REPO)
    while content:  # so that letting go of it needs no recursion either
        inner = content.pop(next(iter(content)))
        content = inner[0] if isinstance(inner, list) else {}


def test_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsCorrupt, match=r"config\.json of user/tiny is not readable"):
        refuse_remote_code(tmp_path / "config.json", REPO)


def test_the_order_of_the_listing_does_not_matter() -> None:
    names = ["config.json", "vocab.json", *SHARDS, "model.safetensors.index.json", "pytorch_model.bin", "README.md"]
    expected = sorted(wanted(*names))
    for seed in range(5):
        random.Random(seed).shuffle(names)
        assert sorted(wanted(*names)) == expected
