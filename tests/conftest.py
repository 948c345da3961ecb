"""What the tests share: the real weights, a suite running in this process, and clients of it."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes of tests have the cores; the suite sets its own
os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # as `shared.serving.runtime.start` does; test modules import torch before
import fcntl
import ssl
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from gradio_client import Client

from shared.checkpoints.catalog import Catalog
from shared.checkpoints.weights import verified_folder
from shared.engines.kernels.compiling import CompiledFiles
from shared.serving.context import Context
from shared.serving.runtime import Runtime, start
from shared.settings import Settings
from shared.suite import Suite, serve

pytest_plugins = ["tests.browsing", "tests.stand_in_hub.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that the processes of `make test` end at about the same time: the longest,
    then those that train, which need none of the kernels that the longest compiles meanwhile."""
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("browser")}

    def place(item: pytest.Item) -> int:
        first = (item.path.name == "test_browser.py", item.nodeid.startswith("tests/finetune/"), item.path in long)
        return first.index(True) if any(first) else len(first)

    items.sort(key=place)


def read_certificates_once() -> None:
    """httpx reads its file of certificates at every call without a client: 50 ms, many times what a call here takes."""
    create = ssl.create_default_context
    kept = cache(lambda file: create(cafile=file))

    def create_or_keep(*arguments: Any, **options: Any) -> ssl.SSLContext:
        if not arguments and list(options) == ["cafile"]:
            return kept(options["cafile"])
        return create(*arguments, **options)

    ssl.create_default_context = create_or_keep


read_certificates_once()


def compile_each_kernel_once() -> None:
    """Where several processes of tests need a kernel that is not compiled yet, one compiles it and the others wait.

    A lock on a byte of a common file stands for each; it goes with its process, and of a ring of waiting processes the
    system lets one go on, which then compiles what another compiles too.
    """
    lock = (Path(tempfile.gettempdir()) / f"kernels-being-compiled-{os.getuid()}").open("wb")
    load, save = CompiledFiles.load, CompiledFiles.save

    def byte(self: CompiledFiles, key: Any) -> int:
        return zlib.crc32(bytes(self._file(key)))

    def load_or_wait(self: CompiledFiles, key: Any) -> Any:
        if (found := load(self, key)) is None:
            with suppress(OSError):
                fcntl.lockf(lock, fcntl.LOCK_EX, 1, byte(self, key))
            if (found := load(self, key)) is not None:
                fcntl.lockf(lock, fcntl.LOCK_UN, 1, byte(self, key))
        return found

    def save_and_let_others_in(self: CompiledFiles, key: Any, compiled: Any) -> None:
        save(self, key, compiled)
        fcntl.lockf(lock, fcntl.LOCK_UN, 1, byte(self, key))

    CompiledFiles.load, CompiledFiles.save = load_or_wait, save_and_let_others_in


compile_each_kernel_once()

# No example fails for having been slow: another process may have had the cores.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def settings() -> Settings:
    """As a user has them by default, but for a free port, and for answers: a test that asks twice means it."""
    return Settings(port=0, warm_examples=False, answer_cache=0)


@pytest.fixture(scope="session")
def weights(settings: Settings) -> Callable[[str], Path]:
    """`weights(checkpoint_id)`: folder of the verified files that `make setup` fetched."""
    catalog = Catalog.read()

    def folder(checkpoint_id: str) -> Path:
        return verified_folder(catalog.choose_by_id(checkpoint_id), settings, lambda *_: None)

    return folder


@pytest.fixture(scope="session")
def runtime(settings: Settings) -> Iterator[Runtime]:
    """Shared parts with the real catalog and weights, without a server."""
    runtime = start(settings)
    yield runtime
    runtime.lane.close()
    runtime.cache.close()


@pytest.fixture
def context(runtime: Runtime) -> Context:
    """A visitor of `runtime`."""
    return Context(runtime, "test/visitor")


@pytest.fixture(scope="session")
def suite(settings: Settings) -> Iterator[Suite]:
    """The whole suite, served on a free port of this machine."""
    running = serve(settings, block=False)
    yield running
    running.close()


@pytest.fixture(scope="session")
def client(suite: Suite) -> Client:
    return Client(suite.url, verbose=False)
