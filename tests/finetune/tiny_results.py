"""Small trained results for the tests of what is done with them: trained once, for a few real steps."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune.base import shared_parts
from finetune.recipe import Recipe, check_recipe
from finetune.run.job import measure_result, trained_model
from finetune.run_folder import run_of
from shared.settings import Settings
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import turn_clients_to
from tests.tiny_checkpoints.decoders import llama_chat
from tests.tiny_checkpoints.encoders import tiny_bert

LABELS = ("good|bad", "sad")
"""One of them is awkward in a table."""


@dataclass(frozen=True)
class TinyResults:
    """Folders of results, and of the bases they were trained on."""

    bert: Path
    llama: Path
    sorting: Path
    """A LoRA adapter that classifies, on `user/bert`; its inputs are a multiple of 64, so NF4 can compute it."""
    replying: Path
    """A LoRA adapter that replies, on `user/llama`, measured; its inputs are no multiple of 64."""
    head: Path
    """A whole checkpoint that classifies: `user/bert` with a head of its own."""
    table: Path

    def serve_bases(self, hub: StandInHub) -> None:
        hub.add("user/bert", self.bert)
        hub.add("user/llama", self.llama)


def recipe_of(table: Path, **changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "moods",
        "title": "Moods | <b>tiny</b>",
        "summary": "Sorts sentences by mood.",
        "base": "user/bert",
        "task": "text-classification",
        "data": {"source": {"file": str(table)}, "split": {"validation": 0.0, "test": 0.3}},
        "method": {"name": "lora", "rank": 4},
        "training": {"learning_rate": 0.02, "batch_size": 4, "max_steps": 3, "max_length": 24, "evaluations": 1},
        "evaluation": {"rows": 8, "shots": [], "max_new_tokens": 4},
        "publishing": {"licence": "BSD-3-Clause", "limits": "It knows nothing.", "example": "What a `fine` day!"},
    }
    return check_recipe(content | changes)


def write_moods(table: Path, count: int = 24) -> Path:
    """A table of so many rows, no two alike."""
    words = ["sun", "rain", "phone", "film", "book", "cook", "rice", "moon", "ship", "plaza", "music", "class"]
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "reply"])
        for i in range(count):
            word, other, mood = words[i % 12], words[(i + 5) % 12], LABELS[i % 2]
            rows.writerow([f"{word} and {other} number {i} make me {mood}", mood, f"So {mood}, the {word}!"])
    return table


def train_tiny(folder: Path) -> TinyResults:
    """Trains all of them in `folder`, with a Hub of their own."""
    (folder / "private").mkdir()
    table = write_moods(folder / "private" / "moods.csv")
    settings = Settings(cache_dir=folder / "cache", warm_examples=False)
    found: dict[str, Any] = {"bert": tiny_bert(folder / "bert"), "llama": llama_chat(folder / "llama"), "table": table}
    robot = {"source": {"file": str(table)}, "target": "reply", "split": {"validation": 0.0, "test": 0.3}}
    recipes = {
        "sorting": recipe_of(table),
        "head": recipe_of(table, name="head", method={"name": "partial"}),
        "replying": recipe_of(table, name="robot", base="user/llama", task="conversational", data=robot),
    }
    with StandInHub() as hub, pytest.MonkeyPatch.context() as patch:
        turn_clients_to(hub.endpoint, folder / "hf-home", patch)
        hub.add("user/bert", found["bert"])
        hub.add("user/llama", found["llama"])
        with shared_parts(settings) as runtime:
            for name, recipe in recipes.items():
                run = run_of(recipe, settings)
                trained, parts = trained_model(recipe, run, runtime, resume=False)
                if name != "head":
                    measure_result(trained, parts, run, runtime)
                found[name] = run.result
    return TinyResults(**found)
