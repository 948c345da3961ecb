"""Shipped recipes, for a few real steps each: those of a registry on their own rows, the Hub's on a stand-in Hub, with
tiny checkpoints under the names of the real ones and data sets of the columns that the real ones have."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import Any

import datasets
import pytest

from finetune.base import shared_parts
from finetune.data.split import split
from finetune.recipe import read_recipe
from finetune.results.loading import load_trained
from finetune.run.job import as_trained, install_adapter, measure_result
from finetune.run.train import train
from finetune.run_folder import run_of
from shared.serving.runtime import Runtime
from shared.settings import Settings
from tests.course_hub import push
from tests.finetune.test_methods import losses
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import turn_clients_to

FEW_STEPS = ["training.max_steps=10", "training.evaluations=1", "training.batch_size=8"]
TINY = [*FEW_STEPS, "training.learning_rate=0.02", "training.max_length=64", "evaluation.rows=6"]
LOUD = "training.learning_rate=0.3"
"""The tiny FLAN-T5's weights are drawn large, so that its answers vary."""
BRIEF = ["evaluation.max_new_tokens=6", "data.split.test=0.2"]


def test_spam_is_told_from_ham(mails: list[dict[str, str]], parts: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    few = random.Random(0).sample(mails, 200)
    monkeypatch.setattr("finetune.data.corpora.read", lambda *_: iter(few))
    recipe = read_recipe("spam", [*FEW_STEPS, "training.max_steps=8", "training.max_length=48"])
    run = run_of(recipe, parts.settings)
    prepared, _ = train(recipe, run, parts)
    assert prepared.labels == ["ham", "spam"]
    found = losses(run)
    assert sum(found[-3:]) < sum(found[:3])
    senders = [{item.group for item in part if item.group} for part in (prepared.parts.train, prepared.parts.test)]
    assert not senders[0] & senders[1]


@pytest.mark.parametrize(
    ("name", "steps", "rows"),
    [
        ("topics", 10, 4),
        pytest.param("headlines", 10, 4, marks=pytest.mark.slow),
        pytest.param("robot", 8, 2, marks=pytest.mark.slow),
    ],
)
def test_a_recipe_on_real_weights_and_its_own_rows(name: str, steps: int, rows: int, parts: Runtime) -> None:
    """The other recipes of topics differ from the first in their method alone (`test_methods`)."""
    brief = [f"training.max_steps={steps}", f"training.batch_size={rows}", "training.max_length=48", "data.limit=150"]
    recipe = read_recipe(name, [*FEW_STEPS, *brief])
    run = run_of(recipe, parts.settings)
    prepared, _ = train(recipe, run, parts)
    found = losses(run)
    assert sum(found[-4:]) < sum(found[:4])
    held = {(item.input, item.target) for item in [*prepared.parts.test, *prepared.parts.validation]}
    assert held.isdisjoint((item.input, item.target) for item in prepared.parts.train)


# -- texts to texts, from a Hub ----------------------------------------------------------------------


def pairs() -> list[tuple[str, str]]:
    words = ("house", "street", "garden", "river", "window", "letter", "museum", "apple")
    return [(f"The {a} and the {b} number {i}.", f"The {b}.") for a in words for b in words for i in range(2) if a != b]


TABLES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "FiscalNote/billsum": (
        "data/ca_test-00000-of-00001.parquet",
        [{"text": text, "summary": summary, "title": "A bill"} for text, summary in pairs()],
    ),
    "knkarthick/dialogsum": (
        "train.csv",
        [{"id": i, "dialogue": f"#Person1#: {a}", "summary": b, "topic": "x"} for i, (a, b) in enumerate(pairs())],
    ),
    "Helsinki-NLP/opus_books": (
        "en-es/train-00000-of-00001.parquet",
        [{"id": str(i), "translation": {"en": a, "es": b}} for i, (a, b) in enumerate(pairs())],
    ),
}
"""By repository: the file, and rows in the columns of the real one."""
OPUS = "configs:\n- config_name: en-es\n  data_files:\n  - {split: train, path: en-es/train-*}\n"


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A machine whose Hub has the tiny checkpoints and tables, and whose catalog pins their commits."""
    folder = tmp_path_factory.mktemp("hub-recipes")
    with StandInHub() as hub, pytest.MonkeyPatch.context() as patch:
        turn_clients_to(hub.endpoint, folder / "hf-home", patch)
        for repo, (name, rows) in TABLES.items():
            card = f"---\n{OPUS if 'opus' in repo else ''}license: other\n---\n"
            hub.add(repo, {name: as_file(name, rows), "README.md": card}, repo_type="dataset")
        bases = ("google-t5/t5-small", "google/flan-t5-small", "Helsinki-NLP/opus-mt-en-es")
        (folder / "made").mkdir()
        with shared_parts(Settings(cache_dir=folder / "cache", warm_examples=False)) as runtime:
            for repo in bases:
                commit = push(hub, repo, folder / "made" / repo.replace("/", "--"))
                pinned = {"revision": commit, "parameters": 500_000}
                runtime.catalog.add(runtime.catalog.choose_by_id(repo).model_copy(update=pinned))
            yield runtime


def as_file(name: str, rows: list[dict[str, Any]]) -> bytes:
    table, file = datasets.Dataset.from_list(rows), io.BytesIO()
    (table.to_parquet if name.endswith(".parquet") else table.to_csv)(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "headline", "bases"),
    [
        ("summaries-t5", "rougeL", ["base, zero-shot"]),
        ("summaries-t5-full", "rougeL", ["base, zero-shot"]),
        ("dialogues-flan-t5", "rougeL", ["base, zero-shot", "base, 1 example"]),
        ("translation-marian", "chrf", ["base, zero-shot"]),
    ],
)
def test_a_model_of_the_hub_learns_from_a_data_set_of_the_hub(
    name: str, headline: str, bases: list[str], taught: Runtime
) -> None:
    recipe = read_recipe(name, [*TINY, *BRIEF, *([LOUD] if "flan" in name else [])])
    run = run_of(recipe, taught.settings)
    prepared, _ = train(recipe, run, taught)
    assert prepared.facts["rows"]["read"] == len(pairs())
    found = losses(run)
    assert sum(found[-3:]) < sum(found[:3])

    measured = measure_result(as_trained(prepared, run), prepared.parts, run, taught)
    assert measured["metric"] == headline
    assert [system["name"] for system in measured["systems"] if system["kind"] == "base"] == bases
    assert {"rouge1", "rouge2", "rougeL", "chrf"} <= measured["systems"][-1]["metrics"].keys()
    assert not any(system["failed"] for system in measured["systems"])

    items = prepared.parts.test[:3]
    again = load_trained(run.folder, None, taught)
    answers = [
        prepared.task.answers(model.eval(), prepared.processor, items, recipe, (), lambda *_: None)
        for model in (prepared.model, again.model)
    ]
    assert answers[0] == answers[1]
    assert any(answers[0])


@pytest.mark.parametrize("name", ["summaries-t5", "translation-marian"])
def test_batches_that_are_put_together_count_as_one(name: str, taught: Runtime) -> None:
    found = []
    for size, count in ((8, 1), (2, 4)):
        changes = [f"training.batch_size={size}", f"training.gradient_accumulation={count}", "training.max_steps=1"]
        recipe = read_recipe(name, [*TINY, *BRIEF, *changes])
        run = run_of(recipe, taught.settings)
        train(recipe, run, taught)
        found += losses(run)
    assert found[1] == pytest.approx(found[0], rel=0.2)  # rows are of different length


@pytest.mark.slow
def test_an_adapter_for_dialogues_answers_in_the_space_as_it_was_trained(taught: Runtime) -> None:
    from shared.serving.context import Context
    from shared.serving.endpoint import collect
    from shared.serving.traffic import Traffic
    from summarization import SPACE

    recipe = read_recipe("dialogues-flan-t5", [*TINY, *BRIEF, LOUD])
    run = run_of(recipe, taught.settings)
    if not run.result.exists():
        train(recipe, run, taught)
    name = install_adapter(recipe, run, taught.settings)
    trained = load_trained(run.folder, None, taught)
    item = split(recipe.data.source.rows(), recipe.data, generates=True).test[0]  # type: ignore[union-attr]
    (expected,) = trained.task.answers(trained.model, trained.processor, [item], recipe, (), lambda *_: None)
    inputs = {
        "text": item.input, "style": "dialogue", "max_new_tokens": 8, "num_beams": 1, "model": f"{recipe.base}+{name}",
    }  # fmt: skip
    done = collect(SPACE.endpoint("summarize").run(inputs, Context(taught, "test", admin=True), Traffic()))
    assert done.run.adapter.partition("@")[0] == name
    assert expected
    assert done.result.text.startswith(expected)
    ids = trained.processor(recipe.instruction.format(text=item.input))["input_ids"]
    assert done.result.prompt == trained.processor.decode(ids)
