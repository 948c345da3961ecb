"""A new kind of model is an entry in the registry and an engine module, and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from shared.checkpoints import kinds
from shared.checkpoints.catalog import Catalog, Checkpoint
from shared.checkpoints.kinds import HubModel, Kind
from shared.engines.choice import source_of
from shared.engines.protocols import NoCache
from shared.errors import UnknownCheckpoint
from shared.events import result_of
from shared.fetching import hub_models
from shared.fetching.hub_link import HubLink
from shared.serving.context import Context
from shared.serving.runtime import Runtime, start
from shared.settings import Settings
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv
from tests.tiny_checkpoints.entry import entry

TOY = Kind(
    "toy",
    "toys",
    tasks=("text-classification",),
    architectures=("ForToys",),
    model_types=frozenset({"bert"}),
    is_whole=lambda names: "vocab.txt" in names,
)
REPO = "user/toy"
FILES = {
    "config.json": json.dumps({"architectures": ["BertForToys"], "model_type": "bert"}).encode(),
    "vocab.txt": b"good\nbad\n",
    "model.safetensors": b"toy weights",
}


class ToyEngine(NoCache):
    name = "toy"

    def __init__(self, words: list[str]) -> None:
        self.words, self.nbytes = words, 11


@pytest.fixture
def toy_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module `shared.engines.toys`."""

    def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Any) -> ToyEngine:
        return ToyEngine((folder / "vocab.txt").read_text().split())

    module: Any = ModuleType("shared.engines.toys")
    module.load, module.memory_bytes = load, lambda checkpoint: 11
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def runtime(hub_env: HubEnv, tmp_path: Path) -> Iterator[Runtime]:
    runtime = start(Settings(cache_dir=tmp_path))
    yield runtime
    runtime.lane.close()
    runtime.cache.close()


def test_a_registered_kind_is_recognised_fetched_and_loaded(
    hub: StandInHub, runtime: Runtime, toy_engine: None
) -> None:
    commit = hub.add(REPO, FILES)
    with kinds.registered(TOY):
        hub_models.add(REPO, runtime.catalog, runtime.hub)
        found = runtime.catalog.choose(REPO, "text-classification")
        assert (found.kind, found.engine, found.tasks, found.revision) == ("toy", "toys", TOY.tasks, commit)
        for loaded in (False, True):
            borrowing = Context(runtime).borrow(REPO, "text-classification")
            with result_of(borrowing) as lease:
                assert lease.engine_as(ToyEngine, "toy").words == ["good", "bad"]
                assert lease.run_info().loaded is loaded
        assert [row["engine"] for row in runtime.cache.report()["checkpoints"]] == ["toy"]
    with pytest.raises(UnknownCheckpoint, match="BertForToys, which no engine here runs"):
        hub_models.described(REPO, HubLink("auto"))


def test_a_catalog_names_registered_kinds_only() -> None:
    with pytest.raises(ValidationError, match="no kind of model is called 'toy'"):
        entry(kind="toy")
    with kinds.registered(TOY):
        assert entry(kind="toy", engine="toys").kind == "toy"
        with pytest.raises(ValueError, match="there is a kind 'toy' already"):
            kinds.register(TOY)


def test_the_longest_end_of_a_class_name_counts() -> None:
    for architecture, name in (
        ("Wav2Vec2ForSequenceClassification", "audio-classifier"),
        ("RobertaForSequenceClassification", "sequence-classifier"),
    ):
        kind = kinds.kind_of(HubModel({"architectures": [architecture]}))
        assert kind is not None
        assert kind.name == name


def test_the_catalogs_checkpoints_do_what_their_kinds_do() -> None:
    for checkpoint in Catalog.read():
        kind = kinds.get(checkpoint.kind)
        assert set(checkpoint.tasks) <= set(kind.tasks)
        assert source_of(kind.engine) is not None
