"""What the evaluation concludes from two engines' answers; the answers are `make eval`'s."""

from __future__ import annotations

import os
from dataclasses import replace
from unittest.mock import patch

import pytest

with patch.dict(os.environ):  # a benchmark sets variables for itself, and other tests must not see them
    from benchmarks.quality import Row, items
    from benchmarks.quality_engines import Beside, beside, results, verdict_rows
    from benchmarks.quality_labels import SHOTS, held_out


def row(n: int, engine: str) -> Row:
    labels = tuple("ab"[i % 2] for i in range(n))
    return Row(
        "topics", "tiny", "accuracy", n, (90.0,), model="tiny", engine=engine, answers=labels, judged_with="labels"
    )


def differing(of: Row, places: int) -> Row:
    return replace(of, answers=("c",) * places + of.answers[places:])


@pytest.mark.parametrize(("places", "verdict"), [(8, "meets"), (9, "**misses**")])
def test_two_in_a_hundred_labels_may_differ(places: int, verdict: str) -> None:
    pairs = [Beside(differing(row(400, "int8"), places), row(400, "fp32"))]
    assert [cells[-1] for cells in verdict_rows(pairs)] == [verdict]


def test_rows_of_a_checkpoint_count_together_and_too_few_say_nothing() -> None:
    few = Beside(row(300, "int8"), row(300, "fp32"))
    assert [cells[-1] for cells in verdict_rows([few])] == ["too few rows to say"]
    (cells,) = verdict_rows([few, Beside(differing(row(100, "int8"), 12), row(100, "fp32"))])
    assert cells[4:] == ["400", "same label ≥ 98 % of 400 or more", "97.0 %", "**misses**"]


def test_an_engine_does_not_agree_with_itself() -> None:
    pairs = [Beside(row(400, "fp32"), row(400, "fp32"))]
    assert [cells[-1] for cells in verdict_rows(pairs)] == ["one engine is both here"]


def texts(engine: str, n: int, *values: float) -> Row:
    return Row(
        "summaries", "tiny", "ROUGE-1 / 2 / L", n, values, model="tiny", engine=engine, answers=("a b",) * n,
        judged_with="summaries",
    )  # fmt: skip


def test_every_score_is_judged_by_the_mean_of_all_rows() -> None:
    articles = Beside(texts("int8", 30, 28.0, 6.0, 18.0), texts("fp32", 30, 29.2, 6.0, 18.0))
    dialogues = Beside(texts("int8", 10, 30.0, 6.0, 18.0), texts("fp32", 10, 29.6, 6.0, 18.0))
    assert [cells[-2:] for cells in verdict_rows([articles])] == [["-1.20 / +0.00 / +0.00", "**misses**"]]
    assert [cells[-2:] for cells in verdict_rows([articles, dialogues])] == [["-0.80 / +0.00 / +0.00", "meets"]]
    better = Beside(articles.reference, replace(articles.fast, engine="other"))
    assert [cells[-1] for cells in verdict_rows([better])] == ["**misses**"]


def test_a_baseline_is_judged_by_nobody() -> None:
    plain = replace(row(400, ""), model="", judged_with="")
    assert list(verdict_rows([Beside(plain, plain)])) == []
    assert (
        results([Beside(plain, plain)])
        .splitlines()[-1]
        .startswith("| topics | tiny | accuracy | 400 | 90.0 | 90.0 |  |")
    )


def test_only_the_same_rows_stand_side_by_side() -> None:
    assert beside([row(4, "int8")], [row(4, "fp32")])
    with pytest.raises(ValueError, match="stands beside"):
        beside([row(4, "int8")], [row(5, "fp32")])
    with pytest.raises(ValueError, match="zip"):
        beside([row(4, "int8")], [])


def test_examples_are_never_judged() -> None:
    found = items("topics", quick=False)
    taught, judged = held_out(found, seed=0)
    assert len(taught) == max(SHOTS)
    assert len(taught) + len(judged) == len(found)
    assert not {item["text"] for item in taught} & {item["text"] for item in judged}
