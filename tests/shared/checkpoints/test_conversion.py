"""A conversion happens once, whole or not at all."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.checkpoints import conversion
from shared.checkpoints.catalog import Catalog, Checkpoint
from shared.checkpoints.conversion import MANIFEST, converted
from shared.errors import SuiteError
from shared.settings import Settings

CHECKPOINT: Checkpoint = next(iter(Catalog.read()))


class Converter:
    """Writes two files, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.calls = 0
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, source: Path, target: Path) -> None:
        self.calls += 1
        assert list(target.iterdir()) == []
        (target / "weights.bin").write_bytes(b"weights " * 1000)
        self.begun.set()
        assert self.go_on.wait(20)
        (target / "tokenizer.json").write_text((source / "original").read_text())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "original").write_text("{}")
    return tmp_path / "source"


@pytest.fixture
def ready(settings: Settings, source: Path) -> Callable[[Callable[[Path, Path], None]], Path]:
    """`ready(convert)`: the converted folder."""
    return lambda convert: converted(CHECKPOINT, source, settings, convert, lambda *_: None)


Ready = Callable[[Callable[[Path, Path], None]], Path]


def leftovers(settings: Settings) -> set[str]:
    """What lies in the folder of conversions, locks apart."""
    return {path.name for path in settings.converted_dir.iterdir() if path.suffix != ".lock"}


def test_the_second_time_nothing_is_converted(ready: Ready, settings: Settings) -> None:
    convert = Converter()
    folder = ready(convert)
    assert (folder / "tokenizer.json").read_text() == "{}"
    assert (folder / "weights.bin").stat().st_size == 8000
    assert ready(convert) == folder
    assert convert.calls == 1
    assert leftovers(settings) == {CHECKPOINT.folder}


def test_what_happens_is_told(settings: Settings, source: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        converted(CHECKPOINT, source, settings, Converter(), lambda what, done, total: told.append(what))
    assert told[0] == f"converting {CHECKPOINT.id}, once"
    assert "checking weights.bin" in told[1:]


def alter(folder: Path) -> None:
    content = bytearray((folder / "weights.bin").read_bytes())
    content[4000] ^= 1
    (folder / "weights.bin").write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit flipped": alter,
    "cut short": lambda folder: (folder / "weights.bin").write_bytes(b"weights "),
    "file missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "manifest missing": lambda folder: (folder / MANIFEST).unlink(),
    "manifest cut short": lambda folder: (folder / MANIFEST).write_text('{"weights.bin": "0'),
    "manifest not text": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_was_damaged_is_converted_again(ready: Ready, damage: Callable[[Path], object]) -> None:
    convert = Converter()
    damage(ready(convert))
    folder = ready(convert)
    assert convert.calls == 2
    assert (folder / "weights.bin").read_bytes() == b"weights " * 1000
    assert (folder / "tokenizer.json").is_file()
    ready(convert)
    assert convert.calls == 2


def test_what_a_killed_run_left_half_done_is_started_over(ready: Ready, settings: Settings) -> None:
    half = settings.converted_dir / f".{CHECKPOINT.folder}.part"
    half.mkdir(parents=True)
    (half / "weights.bin").write_bytes(b"half")
    convert = Converter()
    folder = ready(convert)
    assert convert.calls == 1
    assert (folder / "weights.bin").stat().st_size == 8000
    assert leftovers(settings) == {CHECKPOINT.folder}


def test_a_full_disk_is_said_plainly_and_leaves_nothing(ready: Ready, settings: Settings) -> None:
    def no_space(source: Path, target: Path) -> None:
        (target / "weights.bin").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SuiteError, match=r"could not be converted: No space left on device .* MB are free") as caught:
        ready(no_space)
    assert "SUITE_CACHE_DIR" in str(caught.value)
    assert leftovers(settings) == set()
    ready(Converter())
    assert leftovers(settings) == {CHECKPOINT.folder}


def test_a_disk_that_fills_up_with_the_manifest_leaves_nothing(
    ready: Ready, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(conversion.json, "dumps", no_space)
    with pytest.raises(SuiteError, match="No space left"):
        ready(Converter())
    assert leftovers(settings) == set()


def test_any_other_failure_leaves_nothing_either(ready: Ready, settings: Settings) -> None:
    def fail(source: Path, target: Path) -> None:
        (target / "weights.bin").write_bytes(b"half")
        raise ValueError("not a model")

    with pytest.raises(ValueError, match="not a model"):
        ready(fail)
    assert leftovers(settings) == set()


def test_many_at_once_convert_once(ready: Ready) -> None:
    convert, folders, start = Converter(), [], threading.Barrier(5)
    convert.go_on.clear()

    def ask() -> None:
        start.wait(20)
        folders.append(ready(convert))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait(20)
    assert convert.begun.wait(20)
    convert.go_on.set()
    for thread in threads:
        thread.join(20)
    assert convert.calls == 1
    assert len(folders) == 4
    assert len(set(folders)) == 1


def test_a_folder_of_another_format_is_never_loaded_and_goes(settings: Settings, source: Path) -> None:
    def ready(convert: Converter, number: int, form: str = "") -> Path:
        return converted(CHECKPOINT, source, settings, convert, lambda *_: None, form=form, number=number)

    convert, other_form = Converter(), Converter()
    ready(other_form, 1, "other")
    folders = [ready(convert, number) for number in (1, 2, 2, 3)]
    assert convert.calls == 3, "of each format once"
    assert len(set(folders)) == 3
    assert leftovers(settings) == {folders[-1].name, f"{CHECKPOINT.folder}-other"}
    assert ready(convert, 1) == folders[0], "as after a return to an older version"
    assert (convert.calls, other_form.calls) == (4, 1)
    assert not folders[-1].exists()


def test_what_was_converted_before_can_be_converted_into_another_form(settings: Settings, source: Path) -> None:
    """As a `.bin` is, into safetensors and then for the kernels, with all that lies beside it."""
    calls: list[Path] = []

    def copy(first: Path, target: Path) -> None:
        calls.append(target)
        for file in first.iterdir():
            (target / file.name).write_bytes(file.read_bytes())

    first = converted(CHECKPOINT, source, settings, copy, lambda *_: None)
    for _ in range(2):
        second = converted(CHECKPOINT, first, settings, copy, lambda *_: None, form="kernels")
        assert (second / "original").read_text() == "{}"
    assert len(calls) == 2, "each once"
