"""What runs a checkpoint whose fast engine cannot run here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from shared.checkpoints.catalog import Catalog
from shared.engines import choice
from shared.engines.choice import BATCHED, engine_module, reference_of, slower_here
from shared.engines.decoders.reference import TorchCausalLM
from shared.engines.firefox import batched
from shared.engines.packed import kernel_choice
from shared.settings import Settings
from tests.tiny_checkpoints.decoders import llama_chat
from tests.tiny_checkpoints.entry import entry

CATALOG = Catalog.read()
EN_PT = CATALOG.choose_by_id("firefox-translations-en-pt")
NEEDED = "shared.engines.firefox.batched_network"
"""What the fast translator imports, and the reference does not."""

Blocked = Callable[[str, object], None]


class Broken(ModuleType):
    """A library that is there and fails as soon as anything is taken from it."""

    def __getattr__(self, name: str) -> object:
        raise OSError("libomp.so: cannot open shared object file")


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blocked]:
    """`blocked(name, instead)`: the fast translator is imported afresh, and finds this in place of what it needs."""

    def block(name: str, instead: object) -> None:
        choice._module.cache_clear()
        monkeypatch.delitem(sys.modules, "shared.engines.firefox.batched")
        monkeypatch.setitem(sys.modules, name, instead)  # type: ignore[arg-type]

    importlib.import_module("shared.engines.firefox.batched")
    yield block
    choice._module.cache_clear()


def test_every_fast_engine_has_a_reference_of_its_kind() -> None:
    fast = {c.engine for c in CATALOG if c.engine.endswith(BATCHED)}
    assert len(fast) == 4
    for engine in fast:
        for name in (engine, reference_of(engine)):
            module = importlib.import_module(f"shared.engines.{name}")
            assert callable(module.load)
            assert callable(module.memory_bytes)


def test_where_all_is_there_the_fast_engine_runs_it() -> None:
    assert engine_module(EN_PT) is batched


def test_a_missing_library_leaves_the_reference(
    blocked: Blocked, settings: Settings, weights: Callable[[str], Path]
) -> None:
    blocked(NEEDED, None)
    module = engine_module(EN_PT)
    assert module.__name__ == "shared.engines.firefox.reference"
    engine = module.load(EN_PT, weights(EN_PT.id), settings, lambda *_: None)
    assert engine.name == "torch-fp32"
    assert engine.translate(["Good morning."])[0].text == "Bom dia."
    assert slower_here([EN_PT], settings) == {f"the library {NEEDED} is not installed": [EN_PT.id]}


def test_a_broken_library_leaves_the_reference_and_is_named(blocked: Blocked, settings: Settings) -> None:
    blocked(NEEDED, Broken(NEEDED))
    assert engine_module(EN_PT).__name__ == "shared.engines.firefox.reference"
    (reason,) = slower_here([EN_PT], settings)
    assert "do not work here" in reason
    assert "libomp.so" in reason


def test_an_engine_without_a_reference_fails_as_it_is(blocked: Blocked) -> None:
    with pytest.raises(ModuleNotFoundError):
        engine_module(EN_PT.model_copy(update={"engine": "not_there"}))


def test_the_reference_is_named_once_for_each_reason(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = [c for c in CATALOG if c.profile == "embedded"]
    fast = [c.id for c in embedded if c.engine.endswith(BATCHED)]
    wanted = settings.model_copy(update={"engines": "reference"})
    assert slower_here(embedded, wanted) == {"SUITE_ENGINES is set to reference": fast}
    monkeypatch.setattr(batched, "why_not", lambda _: "it rains")
    ((reason, slower),) = slower_here(embedded, settings).items()
    assert reason == "it rains"
    assert "firefox-translations-en-pt" in slower
    assert "all-MiniLM-L6-v2" not in slower


@pytest.fixture
def no_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kernel_choice._import_kernels.cache_clear()
    monkeypatch.setitem(sys.modules, "shared.engines.kernels.products", None)  # type: ignore[arg-type]
    yield
    kernel_choice._import_kernels.cache_clear()


@pytest.mark.usefixtures("no_numba")
def test_without_numba_the_reference_writes_and_the_log_says_so_once(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = entry(engine="decoders.batched")
    folder = llama_chat(tmp_path / "published")
    own = settings.model_copy(update={"cache_dir": tmp_path / "cache"})
    engine = engine_module(checkpoint).load(checkpoint, folder, own, lambda *_: None)
    assert isinstance(engine, TorchCausalLM)
    assert not own.converted_dir.exists()
    (reason,) = slower_here([checkpoint], own)
    assert "numba" in reason
    assert caplog.text.count("several times slower") == 1
