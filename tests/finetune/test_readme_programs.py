"""The programs of `finetune/README.md`, one after the other: fine-tune, push, load, call."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.settings import Settings
from shared.suite import Suite, serve
from tests.finetune.conftest import MakeRecipe
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv

README = Path(__file__).parents[2] / "finetune" / "README.md"
LONGEST = 40
"""Lines a program may have."""


@pytest.fixture
def programs() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def suite(cache: Settings, hub_env: HubEnv) -> Iterator[Suite]:
    running = serve(cache.model_copy(update={"spaces": ("classification",)}), block=False)
    yield running
    running.close()


@pytest.mark.slow
def test_fine_tune_push_load_call(
    programs: list[str],
    suite: Suite,
    cache: Settings,
    hub: StandInHub,
    make_recipe: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert len(programs) == 4
    assert all(len(program.splitlines()) < LONGEST for program in programs)
    tiny = make_recipe(name="topics", **{"training.max_steps": 30})
    (tmp_path / "tiny.yaml").write_text(tiny.to_yaml(), encoding="utf-8")
    monkeypatch.setenv("SUITE_CACHE_DIR", str(cache.cache_dir))
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    hub.add("sentence-transformers/all-MiniLM-L6-v2", real_weights(cache))
    changes = {
        'read_recipe("topics", ["training.epochs=2"])': f'read_recipe("{tmp_path / "tiny.yaml"}")',
        "force=False": "force=True",  # thirty steps need not beat the base
        "http://127.0.0.1:7860/": suite.url,
        "business, sports, tech": "business, sports, health",
        '["business", "entertainment", "politics", "sports", "tech"]': repr(LABELS),
    }
    said = []
    for program in programs:
        for old, new in changes.items():
            program = program.replace(old, new)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(program, {})
        said.append(out.getvalue())
    assert "| **tuned** |" in said[0]
    assert "/user/topics" in said[1].splitlines()[-1]
    assert said[2].strip() in LABELS
    label, adapter = said[3].splitlines()[-1].split()
    assert label in ("business", "sports", "health")
    assert adapter.startswith("topics@")


LABELS = ["business", "food", "health", "politics", "sports", "technology"]
"""Of the tiny table."""


def real_weights(cache: Settings) -> Path:
    """The folder of the real weights."""
    (folder,) = cache.weights_dir.glob("all-MiniLM-L6-v2@*")
    return folder
