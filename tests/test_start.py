"""From the command to the first page, and what is made ready after it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from shared.checkpoints.catalog import Catalog
from shared.serving.space import Space, discover
from shared.settings import Settings
from shared.suite import Suite, serve

ROOT = Path(__file__).parent.parent

FIRST_PAGE = """
import gc, json, os, sys, threading
sys.path[:0] = [".", "spaces"]
from urllib.request import urlopen
from shared.settings import Settings
from shared.suite import serve
suite = serve(Settings(port=0, warm_examples=False), block=False)
status = [urlopen(suite.url + path).status for path in ("", "config", "health")]
heavy = ("torch", "transformers", "datasets", "peft", "numba", "onnxruntime", "ctranslate2", "scipy", "sklearn")
print(json.dumps([status, [name for name in heavy if name in sys.modules], gc.isenabled()]), flush=True)
os._exit(0)
"""


def test_the_first_page_needs_no_library_that_computes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_PAGE], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [[200, 200, 200], [], True], done.stderr


@contextmanager
def warmed(settings: Settings) -> Iterator[Suite]:
    """A suite whose examples have been computed, as far as they can be."""
    suite = serve(settings, block=False)
    try:
        assert suite.warmed.wait(120)
        yield suite
    finally:
        suite.close()


def test_checkpoints_are_warmed_in_the_order_of_the_tabs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "shared.serving.background")
    with warmed(Settings(port=0, cache_dir=tmp_path, profile="embedded")) as suite:
        said = [record.args for record in caplog.records if "could not be computed" in record.msg]
        assert urlopen(suite.url).status == 200
    tried = [str(args[0]) for args in said if isinstance(args, tuple)]
    assert all("make setup" in str(args) for args in said)
    tabs = [space for space in discover() if isinstance(space, Space)]
    places = [next(n for n, tab in enumerate(tabs) if name in {e.name for e in tab.endpoints}) for name in tried]
    assert places == sorted(places)
    assert set(places) == set(range(len(tabs)))


def test_an_example_that_cannot_be_computed_holds_up_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    minilm = Catalog.read().choose_by_id("all-MiniLM-L6-v2").folder
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / minilm).symlink_to(Settings().weights_dir / minilm)
    caplog.set_level(logging.WARNING, "shared.serving.background")
    settings = Settings(port=0, cache_dir=tmp_path, profile="embedded", spaces=("translation", "reading"))
    with warmed(settings) as suite:
        assert "first example of translate could not be computed" in caplog.text
        outcomes = suite.traffic.report()
        assert outcomes["translate"] | {"seconds": 0} == {"seconds": 0, "WeightsMissing": 1}
        assert outcomes["answer_question"]["done"] == 1
