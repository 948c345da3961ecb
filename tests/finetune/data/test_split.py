"""No held-out row is in training: not the same, not nearly the same, not of the same group, not once it is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.settings import Data
from finetune.data.split import Item, grouped, leaked, near_duplicates, split
from shared.errors import InvalidInput

ARTICLE = (
    "The council voted on Tuesday to close the old bridge for two years while engineers replace its cables, and "
    "traders on both banks said that the detour would cost them half of their customers."
)


def data(**changes: Any) -> Data:
    return Data.model_validate({"source": {"file": "rows.csv"}, **changes})


def rows(count: int) -> list[dict[str, str]]:
    return [{"text": f"text number {i} of its own kind {i * i}", "label": "ab"[i % 2]} for i in range(count)]


def test_shares_and_counts() -> None:
    found = split(rows(200), data(), generates=False)
    assert (len(found.train), len(found.validation), len(found.test)) == (140, 20, 40)
    assert found.labels == ["a", "b"]
    assert split(rows(200), data(), generates=False).test == found.test  # the same every time
    assert split(rows(200), data(split={"seed": 1}), generates=False).test != found.test


def test_what_is_left_out_is_counted() -> None:
    given = [
        *rows(100),
        {"text": "  TEXT number 3 of its own KIND 9 ", "label": "b"},
        {"text": "text number 4 of its own kind 16", "label": "b"},
        {"text": "", "label": "a"},
        {"text": "no label", "label": None},
        {"text": "\x00\x95\ud800 ", "label": "a"},
    ]
    counts = split(given, data(), generates=False).counts
    assert counts | {"groups": 0} == {
        "read": 105, "repeated": 1, "contradictory": 1, "empty": 3, "drawn": 100, "groups": 0,
    }  # fmt: skip


def test_a_prompt_may_have_several_replies_where_texts_are_generated() -> None:
    given = [*rows(60), {"text": "text number 2 of its own kind 4", "label": "another reply"}]
    found = split(given, data(), generates=True)
    assert found.counts["drawn"] == 61
    prompt = "text number 2 of its own kind 4"
    parts = (found.train, found.validation, found.test)
    holding = [part for part in parts if any(item.input == prompt for item in part)]
    assert len(holding) == 1  # both in one part


def test_a_column_may_hold_others() -> None:
    found = [
        {"translation": {"en": row["text"], "es": row["text"].upper()}, "a.b": i} for i, row in enumerate(rows(60))
    ]
    columns = {"input": "translation.en", "target": "translation.es", "group": "a.b"}
    first = split(found, data(**columns), generates=True).train[0]
    assert first.target == first.input.upper()
    assert first.group.isdecimal()
    with pytest.raises(InvalidInput, match=r"row 1 has no column 'translation\.fr'; it has translation, a\.b"):
        split(found, data(**columns | {"target": "translation.fr"}), generates=True)


def test_a_pair_is_not_its_reverse_and_a_copy_is_a_pair_as_any_other() -> None:
    texts = [row["text"] for row in rows(40)]
    given = [*zip(texts, reversed(texts), strict=True), *zip(texts, texts, strict=True)]
    found = split(({"text": a, "label": b} for a, b in given), data(), generates=True)
    assert found.counts["drawn"] == found.counts["read"] == 80


def test_near_duplicates_stay_together() -> None:
    changed = ARTICLE.replace("Tuesday", "Wednesday").upper()
    assert list(near_duplicates([ARTICLE, "Something else entirely.", changed])) == [(0, 2)]
    assert list(near_duplicates(["do you drink", "Do you drink?", "do you eat"])) == [(0, 1)]


def test_rows_of_a_group_stay_together() -> None:
    items = [Item(f"text {i} {i**3}", "a", group=str(i % 5)) for i in range(50)]
    assert sorted(map(len, grouped(items))) == [10] * 5
    given = [{"text": f"text {i} {i**3}", "label": "ab"[i % 2], "speaker": i % 7} for i in range(70)]
    found = split(given, data(group="speaker"), generates=False)
    speakers = [{item.group for item in part} for part in (found.train, found.validation, found.test)]
    assert not speakers[0] & speakers[2]
    assert not speakers[0] & speakers[1]


WORDS = st.lists(st.sampled_from(["red", "green", "blue", "one", "two", "three", "four"]), min_size=1, max_size=12)


@given(st.lists(WORDS, min_size=12, max_size=60), st.integers(0, 5))
def test_no_part_knows_a_row_of_another(texts: list[list[str]], seed: int) -> None:
    given = [{"text": " ".join(words), "label": "ab"[i % 2]} for i, words in enumerate(texts)]
    try:
        found = split(given, data(split={"seed": seed}), generates=False)
    except InvalidInput:
        return  # too few that differ
    known = {item.input for item in found.train}
    assert not known & {item.input for item in [*found.validation, *found.test]}
    pairs = near_duplicates([item.input for item in [*found.train, *found.test]])
    assert all((a < len(found.train)) == (b < len(found.train)) for a, b in pairs)


def test_the_same_tokens_after_cutting_are_a_leak() -> None:
    assert leaked([[1, 2, 3], [4]], [[1, 2, 3], [5]]) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "holds no rows"),
        ([{"title": "x"}], "row 1 has no column 'text'; it has title"),
        (rows(3)[:1], "too few rows are left"),
        ([{**row, "label": "a"} for row in rows(50)], "one label only, 'a'"),
        ([{"text": "", "label": ""}] * 30, "too few rows are left"),
    ],
)
def test_too_little_is_refused(given: list[dict[str, str]], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        split(given, data(), generates=False)


def test_labels_unseen_in_training_are_counted() -> None:
    given = [*rows(60), {"text": "one of a kind, found nowhere else", "label": "rare"}]
    for seed in range(40):
        found = split(given, data(split={"seed": seed}), generates=False)
        if "rare" not in found.labels:
            break
    else:
        pytest.fail("no seed put it elsewhere")
    assert all(item.target != "rare" for item in found.validation)
    in_test = sum(item.target == "rare" for item in found.test)
    assert found.counts.get("of labels unseen in training", 0) == in_test
