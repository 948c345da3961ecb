"""Before and after on real weights, and what the figures say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.base import find_base
from finetune.data.split import Item, Parts
from finetune.results import evaluation
from finetune.results.comparisons import System, classifying_base, commonest, examples, logistic_regression, nearest
from finetune.results.evaluation import Evaluation, Measured
from finetune.results.loading import load_trained
from finetune.results.scores import confusion, difference, interval, per_row, scores
from finetune.run.job import compare_results, run_job
from finetune.run_folder import run_of
from shared.errors import SuiteError
from shared.serving.runtime import Runtime
from shared.settings import Settings
from tests.finetune.conftest import MakeRecipe

pytestmark = pytest.mark.slow

PARTS = Parts(
    train=[Item(f"ball goal match {i}", "sports") for i in range(6)]
    + [Item(f"bank share loan {i}", "money") for i in range(4)],
    validation=[],
    test=[Item("a goal in the match", "sports"), Item("a loan from the bank", "money")],
)


LABELS = ["sports", "money", "sports", "other", "money", "sports", "tech", "money"]
RIGHT_LABELS = ["sports", "money", "money", "sports", "money", "sports", "tech", "tech"]
TEXTS = [
    "The cat sat on the mat.",
    "Shares fell by 3 % in London.",
    "",
    "Il fait très beau aujourd'hui",
    "running dogs barked loudly",
]
RIGHT_TEXTS = [
    "A cat was sitting on the mat.",
    "London shares fell three per cent.",
    "Nothing was said.",
    "Il fait beau",
    "the dog barks and runs",
]


def test_metrics_of_fixed_rows() -> None:
    """The values that scripts of the library `evaluate` gave of the same rows, in their order."""
    assert list(scores(LABELS, RIGHT_LABELS, generates=False).items()) == [("accuracy", 0.625), ("f1", 0.5)]
    generated = {"rouge1": 0.4764, "rouge2": 0.2199, "rougeL": 0.3986, "chrf": 0.3271}
    assert list(scores(TEXTS, RIGHT_TEXTS, generates=True).items()) == list(generated.items())
    values, others = np.random.default_rng(1).random(40), np.random.default_rng(2).random(40)
    assert interval(values) == (0.4049, 0.5889)
    assert difference(values, others) == (-0.1459, 0.1255)
    assert interval(values[:1]) == (0.5118, 0.5118)


LENGTHS = """
import datasets
import evaluate


class Lengths(evaluate.Metric):
    def _info(self):
        columns = {name: datasets.Value("KIND") for name in ("predictions", "references")}
        return evaluate.MetricInfo(
            description="", citation="", inputs_description="", features=datasets.Features(columns)
        )

    def _compute(self, predictions, references):
        if len(predictions) > 5:
            raise ValueError("too many rows")
        sizes = [len(p) if isinstance(p, str) else p for p in predictions]
        return {"sum": sum(sizes), "f1": 7, "each": sizes}
"""


def test_a_recipe_may_name_a_metric_of_evaluate(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path / "modules"))
    for name, kind in (("letters", "string"), ("numbers", "int32")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text(LENGTHS.replace("KIND", kind), encoding="utf-8")
    letters, numbers = str(tmp_path / "letters"), str(tmp_path / "numbers" / "numbers.py")
    assert scores(["to", "be"], ["or", "not"], generates=True, more=[letters, "chrf"])["sum"] == 4
    found = scores(["a", "b", "zebra"], ["b", "a", "a"], generates=False, more=[numbers])
    assert found == {"accuracy": 0.0, "f1": 0.0, "sum": 3}  # ours stays, and what is no number is left out
    with pytest.raises(SuiteError, match="cannot judge these rows: too many rows"):
        scores(LABELS, RIGHT_LABELS, generates=False, more=[numbers])

    recipe = make_recipe(**{"evaluation.metrics": [letters]})
    system = System("tuned", "tuned", lambda items: [item.target for item in items])
    assert evaluation.measure(system, recipe, PARTS.test).metrics == {"accuracy": 1.0, "f1": 1.0, "sum": 11}
    assert recipe.digest == make_recipe().digest


def test_a_metric_that_is_missing_is_named_before_the_training(
    make_recipe: MakeRecipe, cache: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_OFFLINE", True)
    recipe = make_recipe(**{"evaluation.metrics": ["chrf", "nosuch"]})
    with pytest.raises(SuiteError, match=r"metric nosuch cannot be loaded: it is not on this machine.*the network"):
        run_job(recipe, cache)
    assert not run_of(recipe, cache).folder.exists()


def test_each_task_has_the_metric_that_can_judge_it() -> None:
    assert per_row(["a", "b"], ["a", "a"], "audio-classification").tolist() == [1.0, 0.0]
    assert per_row(["the cat sat"], ["the cat sat"], "summarization").tolist() == [1.0]
    russian = ["Дом большой, а улица маленькая.", "Дом маленький."]
    assert per_row(russian, [russian[0]] * 2, "summarization").tolist() == [0.0, 0.0]  # ROUGE knows a to z alone
    right, wrong = per_row(russian, [russian[0]] * 2, "translation")
    assert right == 1.0
    assert 0 < wrong < 0.6


def test_intervals_hold_the_mean_and_shrink_with_rows() -> None:
    values = np.array([0.0, 1.0] * 50)
    low, high = interval(values)
    assert low < 0.5 < high
    wider = interval(values[:20])
    assert high - low < wider[1] - wider[0]
    better = np.minimum(values + 0.5, 1.0)
    assert difference(better, values)[0] > 0
    assert difference(values, values) == (0.0, 0.0)


def test_confusion_counts_answers_that_are_no_label() -> None:
    assert confusion(["a", "b", "b"], ["a", "b", "a"]) == {"labels": ["a", "b"], "counts": [[1, 1], [0, 1]]}
    assert confusion(["a", "zebra"], ["a", "b"])["counts"] == [[1, 0, 0], [0, 0, 1]]


def test_classic_baselines() -> None:
    assert commonest(PARTS)(PARTS.test) == ["sports", "sports"]
    assert logistic_regression(PARTS)(PARTS.test) == ["sports", "money"]
    assert nearest(PARTS)(PARTS.test) == ["sports", "money"]


def test_examples_are_of_training_and_of_each_label() -> None:
    shown = examples(PARTS, 2, seed=0, each_label=True)
    assert sorted(item.target for item in shown) == ["money", "money", "sports", "sports"]
    assert all(item in PARTS.train for item in shown)
    assert len(examples(PARTS, 50, seed=0, each_label=False)) == 10


def measured(kind: str, rows: list[float]) -> Measured:
    return Measured(kind, kind, {"accuracy": float(np.mean(rows))}, rows=np.array(rows), answers=["a"] * len(rows))


def test_better_means_that_the_whole_interval_is(make_recipe: MakeRecipe) -> None:
    recipe, items = make_recipe(), [Item("x", "a")] * 100
    base, same, better = [1.0, 0.0] * 50, [0.0, 1.0] * 50, [1.0] * 90 + [0.0] * 10

    def verdict(tuned: list[float]) -> Evaluation:
        found = [measured("baseline", [1.0] * 100), measured("base", base), measured("tuned", tuned)]
        return Evaluation(recipe, "accuracy", items, found, difference(found[-1].rows, found[1].rows))

    assert verdict(better).beats_base
    assert "Better than the best of its base" in verdict(better).verdict()
    assert not verdict(same).beats_base
    assert "needs --force" in verdict(same).verdict()


def test_a_system_that_cannot_do_it_is_a_row_that_says_why(make_recipe: MakeRecipe) -> None:
    def refuse(items: object) -> list[str]:
        raise SuiteError("its window is too small")

    row = evaluation.measure(System("base", "base", refuse), make_recipe(), PARTS.test)
    done = Evaluation(make_recipe(), "accuracy", PARTS.test, [row, measured("tuned", [1.0, 1.0])])
    assert not done.beats_base
    table = evaluation.as_table(evaluation.as_json(done))
    assert "not possible: its window is too small" in table


def test_the_base_reads_as_much_of_a_row_as_a_visitor_may_send(
    make_recipe: MakeRecipe, parts: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUITE_MAX_CHARS", "120")
    runtime = replace(parts, settings=parts.settings.model_copy(update={"max_chars": 120}))
    base = find_base("all-MiniLM-L6-v2", parts, lambda *_: None)
    items = [Item("a goal in the match " * 40, "sports"), *PARTS.test]
    for system in classifying_base(make_recipe(), base, replace(PARTS, train=[*PARTS.train, items[0]]), runtime):
        assert evaluation.measure(system, make_recipe(), items).answers[0] == "sports"


def test_a_whole_job(make_recipe: MakeRecipe, parts: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(**{"training.max_steps": 25})
    run_job(recipe, parts.settings)
    said = capsys.readouterr().out
    assert "the suite offers it now as all-MiniLM-L6-v2+tiny" in said
    run = run_of(recipe, parts.settings)
    content = json.loads((run.result / "evaluation.json").read_text())
    names = [system["name"] for system in content["systems"]]
    assert names == [
        "the commonest label",
        "TF-IDF and logistic regression",
        "base, zero-shot",
        "base, 1 examples of each label",
        "tuned",
    ]
    assert content["rows"] == 12
    tuned = content["systems"][-1]
    assert tuned["metrics"]["accuracy"] > content["systems"][0]["metrics"]["accuracy"]
    assert sum(map(sum, tuned["confusion"]["counts"])) == 12
    assert (run.result / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (run.result / "evaluation.md").is_file()
    assert (parts.settings.cache_dir / "adapters" / "tiny" / "adapter_model.safetensors").is_file()

    # What was saved answers as what was in memory did.
    trained = load_trained("tiny", None, parts)
    items = [Item(**item) for item in json.loads(json.dumps([{"input": "The match ended in a draw.", "target": ""}]))]
    again = evaluation.tuned_system(trained).answer(items)
    assert again[0] in trained.labels
    compare_results("tiny", str(run.folder), parts.settings)
    assert "| accuracy |" in capsys.readouterr().out


def test_an_untrained_recipe_is_named(parts: Runtime) -> None:
    with pytest.raises(SuiteError, match="has not been trained on this machine; run `python -m finetune robot`"):
        load_trained("robot", None, parts)
    with pytest.raises(SuiteError, match="neither a folder that a run wrote nor the name of a recipe"):
        load_trained("nosuch", None, parts)
