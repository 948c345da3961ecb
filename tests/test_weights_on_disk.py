"""Weight files that were altered, cut short or removed: the running suite refuses them and says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from shared.engines.firefox import batched
from shared.settings import Settings
from shared.suite import Suite, serve

pytestmark = pytest.mark.slow

CHECKPOINT = "firefox-translations-en-pt"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, weights: Callable[[str], Path]) -> Iterator[Suite]:
    """A suite with a copy of a translator's files, which may be damaged."""
    settings = Settings(
        answer_cache=0, port=0, cache_dir=tmp_path_factory.mktemp("cache"), warm_examples=False, spaces=("translation",)
    )
    original = weights(CHECKPOINT)
    shutil.copytree(original, settings.weights_dir / original.name)
    running = serve(settings, block=False)
    yield running
    running.close()


@pytest.fixture
def client(own: Suite) -> Client:
    return Client(own.url, verbose=False)


@pytest.fixture
def folder(own: Suite, weights: Callable[[str], Path]) -> Iterator[Path]:
    """The copy's folder, whole at the beginning, with nothing of it in memory."""
    own.runtime.cache.unload(CHECKPOINT)
    original = weights(CHECKPOINT)
    folder = own.settings.weights_dir / original.name
    shutil.copytree(original, folder, dirs_exist_ok=True)
    yield folder
    own.runtime.cache.unload(CHECKPOINT)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the engine was asked to load."""
    asked: list[Any] = []
    load = batched.load

    def noted(*arguments: Any) -> Any:
        asked.append(arguments[0].id)
        return load(*arguments)

    monkeypatch.setattr(batched, "load", noted)
    return asked


def cut_short(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def one_bit(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(1_000)
        byte = stream.read(1)[0]
        stream.seek(1_000)
        stream.write(bytes([byte ^ 1]))


def longer(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"x")


@pytest.mark.parametrize("name", ["model.bin", "vocab.spm"])
@pytest.mark.parametrize("damage", [cut_short, empty, one_bit, longer])
def test_a_damaged_file_is_never_loaded(
    own: Suite, client: Client, folder: Path, loads: list[Any], damage: Callable[[Path], None], name: str
) -> None:
    damage(folder / name)
    with pytest.raises(AppError) as error:
        client.predict("Good morning.", api_name="/translate")
    message = str(error.value)
    assert f"{name} of {CHECKPOINT} was altered or cut short" in message
    assert "`make setup` replaces it" in message
    assert str(folder) not in message
    assert loads == []
    assert own.runtime.cache.report()["checkpoints"] == []
    assert own.runtime.admission.report() == {"running": 0, "queued": 0}


def test_a_missing_file_is_named_with_the_command_that_brings_it(
    own: Suite, client: Client, folder: Path, loads: list[Any]
) -> None:
    (folder / "vocab.spm").unlink()
    with pytest.raises(AppError, match=r"vocab\.spm of .* is not on this machine; run `make setup`"):
        client.predict("Good morning.", api_name="/translate")
    assert loads == []
    assert own.runtime.cache.report()["checkpoints"] == []


def test_a_checkpoint_that_was_never_fetched(own: Suite, client: Client) -> None:
    with pytest.raises(AppError, match="`make setup`"):
        client.predict("Bom dia.", "pt", "en", api_name="/translate")
    assert own.runtime.cache.report()["checkpoints"] == []


def test_it_works_again_once_the_file_is_back(
    client: Client, folder: Path, weights: Callable[[str], Path], loads: list[Any]
) -> None:
    cut_short(folder / "model.bin")
    with pytest.raises(AppError, match="cut short"):
        client.predict("Good morning.", api_name="/translate")
    shutil.copy2(weights(CHECKPOINT) / "model.bin", folder / "model.bin")
    assert client.predict("Good morning.", api_name="/translate")[0] == "Bom dia."
    assert loads == [CHECKPOINT]


def test_what_is_in_memory_outlives_its_file(own: Suite, client: Client, folder: Path) -> None:
    client.predict("Good morning.", api_name="/translate")
    cut_short(folder / "model.bin")
    assert client.predict("Good morning.", api_name="/translate")[1]["loaded"] is True
    own.runtime.cache.unload(CHECKPOINT)
    with pytest.raises(AppError, match="cut short"):
        client.predict("Good morning.", api_name="/translate")
