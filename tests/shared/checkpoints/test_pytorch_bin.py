"""Pickles of weights: read as tensors and nothing else, whatever else they hold."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from shared.checkpoints import pytorch_bin
from shared.checkpoints.pytorch_bin import INDEX, SINGLE, shards, tensors_of, to_safetensors
from shared.errors import MemoryRefused, WeightsCorrupt

ROOT = Path(__file__).resolve().parents[3]


class Hostile:
    """Unpickled without care, it creates a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.victim),)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    return tmp_path / "was-run"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def weights() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    return {name: torch.randn(4, 3, generator=draw) for name in ("embed.weight", "layer.0.weight", "head.weight")}


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
        assert found[name].dtype == value.dtype


# -- what is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_plain_weights(source: Path, target: Path, zipped: bool) -> None:
    expected = weights() | {"half": torch.ones(5, dtype=torch.bfloat16), "ids": torch.arange(4), "none": torch.zeros(0)}
    torch.save(expected, source / SINGLE, _use_new_zipfile_serialization=zipped)
    to_safetensors(source, target)
    equal(load_file(target / "model.safetensors"), expected)


def test_parameters_buffers_and_tied_weights(source: Path, target: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6, bias=False), torch.nn.BatchNorm1d(6))
    model[1].weight = model[0].weight
    torch.save(dict(model.named_parameters()) | {"1.weight": model[1].weight, "t": model[0].weight.T}, source / SINGLE)
    to_safetensors(source, target)
    found = load_file(target / "model.safetensors")
    torch.testing.assert_close(found["0.weight"], found["1.weight"])
    torch.testing.assert_close(found["t"], found["0.weight"].T)


def test_in_shards(source: Path, target: Path) -> None:
    expected, places = weights(), {}
    for number, (name, value) in enumerate(expected.items()):
        places[name] = f"pytorch_model-{number + 1:05}-of-00003.bin"
        torch.save({name: value}, source / places[name])
    (source / INDEX).write_text(json.dumps({"weight_map": places}))
    to_safetensors(source, target)
    equal(load_file(target / "model.safetensors"), expected)
    assert {file.name for file in target.iterdir()} == {"model.safetensors"}


def test_configuration_and_tokenizer_come_along_and_nothing_else(source: Path, target: Path) -> None:
    """In the Hub client's cache lies also what other programs fetched of the same repository."""
    torch.save(weights(), source / SINGLE)
    for name in (
        "config.json",
        "tokenizer.json",
        "source.spm",
        "modeling_tiny.py",
        "tf_model.h5",
        "README.md",
        "x.pkl",
    ):
        (source / name).write_text(name)
    (source / "onnx").mkdir()
    to_safetensors(source, target)
    assert {file.name for file in target.iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "source.spm",
    }
    assert (target / "config.json").read_text() == "config.json"


def test_the_whole_file_counts_where_an_index_of_another_form_lies_beside_it(source: Path) -> None:
    torch.save(weights(), source / SINGLE)
    (source / INDEX).write_text(json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}))
    assert shards(source) == [SINGLE]


# -- what it costs ---------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="nothing says here what is mapped")
def test_the_present_format_is_mapped_and_not_copied(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied = torch.randn(300, 400)
    torch.save({"embed": tied, "head": tied, "more": torch.ones(5)}, source / SINGLE)
    written: list[int] = []
    serialize_file = safetensors.serialize_file

    def noted(specs: dict[str, Any], *arguments: Any, **options: Any) -> None:
        written.extend(spec.data_ptr for spec in specs.values())
        serialize_file(specs, *arguments, **options)

    def places() -> list[tuple[int, int]]:
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if SINGLE in line]
        return [(int(start, 16), int(end, 16)) for start, _, end in (line[0].partition("-") for line in lines)]

    held: list[tuple[int, int]] = []
    monkeypatch.setattr(safetensors, "serialize_file", lambda *a, **o: (held.extend(places()), noted(*a, **o)))
    to_safetensors(source, target)
    assert len(written) == 3
    assert all(any(start <= address < end for start, end in held) for address in written)
    equal(load_file(target / "model.safetensors"), {"embed": tied, "head": tied, "more": torch.ones(5)})


def test_what_has_to_be_copied_must_fit_the_memory(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch_bin, "free_memory", lambda: 10**6)
    torch.save(weights(), source / SINGLE)
    to_safetensors(source, target)
    refused = (
        r"pytorch_model\.bin is published as a pickle, .* 200 MB of memory, of which 1 MB are free\. .* a smaller one"
    )
    torch.save({"w": torch.zeros(30, 50).T}, source / SINGLE)
    with pytest.raises(MemoryRefused, match=refused):
        to_safetensors(source, target)
    torch.save(weights(), source / SINGLE, _use_new_zipfile_serialization=False)
    with pytest.raises(MemoryRefused, match=refused):
        to_safetensors(source, target)


# -- what is refused -------------------------------------------------------------------------------


def test_the_hostile_object_is_hostile(tmp_path: Path, victim: Path) -> None:
    """Or the tests below would prove nothing."""
    torch.save({"weight": Hostile(victim)}, tmp_path / "x")
    torch.load(tmp_path / "x", weights_only=False)
    assert victim.is_dir()


HOSTILE: dict[str, Callable[[Any, Path], object]] = {
    "zip": lambda content, path: torch.save(content, path),
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    "newest pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", HOSTILE)
@pytest.mark.parametrize("place", ["value", "key", "alone", "inside"])
def test_a_hostile_pickle_is_not_run(source: Path, target: Path, victim: Path, form: str, place: str) -> None:
    hostile: Any = Hostile(victim)
    places = {
        "value": {"w": hostile},
        "key": {(1, hostile): 1},
        "alone": hostile,
        "inside": {"w": [weights(), hostile]},
    }
    HOSTILE[form](places[place], source / SINGLE)
    with pytest.raises(WeightsCorrupt, match=r"pytorch_model\.bin was refused: .* nothing in it was run") as refused:
        to_safetensors(source, target)
    assert not victim.exists()
    assert not list(target.iterdir())
    assert "weights_only" not in refused.value.message, "torch's advice is how to run it all the same"


def test_it_says_what_the_pickle_asked_for(source: Path, victim: Path) -> None:
    torch.save({"weight": Hostile(victim)}, source / SINGLE)
    with pytest.raises(WeightsCorrupt, match=r"asks for \w+\.mkdir"):
        tensors_of(source / SINGLE)


def test_a_hostile_shard_is_not_run(source: Path, target: Path, victim: Path) -> None:
    names = [f"pytorch_model-{number}-of-00002.bin" for number in ("00001", "00002")]
    torch.save(weights(), source / names[0])
    torch.save({"weight": Hostile(victim)}, source / names[1])
    (source / INDEX).write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    with pytest.raises(WeightsCorrupt, match=r"pytorch_model-00002-of-00002\.bin was refused"):
        to_safetensors(source, target)
    assert not victim.exists()
    assert not list(target.iterdir())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_whole_module_is_not_a_table_of_weights(source: Path, zipped: bool) -> None:
    torch.save(torch.nn.Linear(2, 2), source / SINGLE, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsCorrupt, match=r"more than weights and asks for torch\.nn\.modules\.linear\.Linear"):
        tensors_of(source / SINGLE)


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)],
        torch.zeros(2),
        {"state_dict": {"weight": torch.zeros(2)}},
        {"weight": torch.zeros(2), "step": 3},
        {1: torch.zeros(2)},
        {"__metadata__": torch.zeros(2)},
        {"weight": torch.eye(3).to_sparse()},
        {"weight": torch.zeros(2, device="meta")},
        {"weight": torch.zeros(2, dtype=torch.complex64)},
        {"weight": torch._neg_view(torch.ones(2))},
    ],
    ids=["list", "tensor", "nested", "number", "key", "reserved", "sparse", "meta", "complex", "negated"],
)
def test_what_is_not_a_table_of_weights(source: Path, target: Path, content: Any) -> None:
    torch.save(content, source / SINGLE)
    with pytest.raises(WeightsCorrupt, match=r"pytorch_model\.bin was refused: it is not a table of weights by name"):
        to_safetensors(source, target)
    assert not list(target.iterdir())


def test_a_small_file_cannot_fill_the_memory(source: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(10**6, 10**6)}, source / SINGLE)  # four bytes of four terabytes
    with pytest.raises(WeightsCorrupt, match="many times the memory"):
        tensors_of(source / SINGLE)


def test_a_compressed_file_is_not_unpacked(source: Path) -> None:
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"weight": torch.zeros(100_000)}, plain)
    with zipfile.ZipFile(plain) as stored, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as compressed:
        for name in stored.namelist():
            compressed.writestr(name, stored.read(name))
    (source / SINGLE).write_bytes(packed.getvalue())
    with pytest.raises(WeightsCorrupt, match="it is compressed"):
        tensors_of(source / SINGLE)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_damaged_files(source: Path, zipped: bool) -> None:
    """Cut short or altered anywhere: weights or a refusal, never another error."""
    torch.save(weights(), source / SINGLE, _use_new_zipfile_serialization=zipped)
    whole = (source / SINGLE).read_bytes()
    chance = random.Random(5)
    refusals = 0
    for round_ in range(60):
        content = bytearray(whole[: chance.randrange(len(whole))] if round_ % 2 else whole)
        for _ in range(round_ // 2 % 8):
            if content:
                content[chance.randrange(len(content))] = chance.randrange(256)
        (source / SINGLE).write_bytes(bytes(content))
        try:
            tensors_of(source / SINGLE)
        except WeightsCorrupt:
            refusals += 1
    assert refusals >= 30


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x02" + b"(" * 100_000 + b".", b"\x80\x02."])
def test_garbage(source: Path, content: bytes) -> None:
    (source / SINGLE).write_bytes(content)
    with pytest.raises(WeightsCorrupt, match=r"pytorch_model\.bin was refused"):
        tensors_of(source / SINGLE)


@pytest.mark.parametrize(
    "index",
    ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 5}}', '{"weight_map": {"a": ["x"]}}', "[" * 100_000],
    ids=["empty", "list", "object", "map", "number", "names", "deep"],
)
def test_an_index_that_is_damaged(source: Path, index: str) -> None:
    (source / INDEX).write_text(index)
    with pytest.raises(WeightsCorrupt, match=r"pytorch_model\.bin\.index\.json is not readable"):
        shards(source)


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/hosts", "missing.bin", "config.json", "sub/x.bin"])
def test_an_index_names_only_pickles_of_its_folder(source: Path, name: str) -> None:
    (source / "config.json").write_text("{}")
    (source / "sub").mkdir()
    for path in (source.parent / "outside.bin", source / "sub" / "x.bin"):
        torch.save(weights(), path)
    (source / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WeightsCorrupt, match="which is not there"):
        shards(source)


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from shared.checkpoints.pytorch_bin import to_safetensors
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as a disk that takes no more
try:
    to_safetensors(Path(sys.argv[1]), Path(sys.argv[2]))
except OSError as error:
    print("OSError", error.strerror)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_disk_that_is_full_is_an_error_of_the_disk(source: Path, target: Path) -> None:
    torch.save({"weight": torch.zeros(100_000)}, source / SINGLE)
    command = [sys.executable, "-c", FULL_DISK, str(source), str(target)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("OSError"), ran.stderr
