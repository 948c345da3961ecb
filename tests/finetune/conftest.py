"""A small table of topics, recipes over it, and a cache of their own with the real weights in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.base import shared_parts
from finetune.data import corpora
from finetune.recipe import Recipe, check_recipe
from shared.fetching.wheel import FetchFailed
from shared.serving.runtime import Runtime
from shared.settings import Settings
from tests.finetune.tiny_results import TinyResults, train_tiny

DATA = Path(__file__).parents[1] / "data"

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="session")
def topics_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 short texts of six topics, as `text,label`."""
    rows = [json.loads(line) for line in (DATA / "topics.jsonl").read_text(encoding="utf-8").splitlines()]
    path = tmp_path_factory.mktemp("rows") / "topics.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows({"text": row["text"], "label": row["label"]} for row in rows)
    return path


@pytest.fixture(scope="session")
def mails() -> list[dict[str, str]]:
    """The rows of the corpus of mail, read once: that takes seconds."""
    try:
        return list(corpora.read("spam-assassin"))
    except FetchFailed as error:
        pytest.skip(f"the corpus of mail is missing: {error}")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyResults:
    return train_tiny(tmp_path_factory.mktemp("tiny-results"))


@pytest.fixture
def cache(tmp_path: Path, settings: Settings) -> Settings:
    """Settings whose cache is empty but for the real weights."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in ("weights", "converted", "corpora"):
        real = settings.cache_dir / name
        real.mkdir(exist_ok=True)
        (folder / name).symlink_to(real)
    return settings.model_copy(update={"cache_dir": folder})


@pytest.fixture
def parts(cache: Settings) -> Iterator[Runtime]:
    with shared_parts(cache) as runtime:
        yield runtime


@pytest.fixture
def make_recipe(topics_csv: Path) -> MakeRecipe:
    """`make_recipe(method={"name": "lora"}, **{"training.max_steps": 4})`: topics on MiniLM, unless changed."""

    def make(**changes: Any) -> Recipe:
        content: dict[str, Any] = {
            "name": "tiny",
            "title": "Tiny topics",
            "summary": "For tests.",
            "base": "all-MiniLM-L6-v2",
            "task": "text-classification",
            "data": {"source": {"file": str(topics_csv)}, "split": {"validation": 0.1, "test": 0.25}},
            "method": {"name": "lora"},
            "training": {"learning_rate": 0.003, "batch_size": 8, "max_steps": 6, "max_length": 32, "evaluations": 2},
            "evaluation": {"rows": 12, "shots": [1]},
            "publishing": {"licence": "MIT", "limits": "Made for a test."},
        }
        for key, value in changes.items():
            *way, last = key.split(".")
            place = content
            for part in way:
                place = place.setdefault(part, {})
            place[last] = value
        return check_recipe(content)

    return make
