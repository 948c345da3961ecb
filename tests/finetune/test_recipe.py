"""Recipes: what is refused, what can be changed, and that the shipped ones are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.recipe import check_recipe, read_recipe, shipped_recipes
from shared.checkpoints.catalog import Catalog
from shared.errors import InvalidInput, SuiteError
from tests.finetune.conftest import MakeRecipe


def test_shipped_recipes_are_right_and_their_bases_known() -> None:
    known = {checkpoint.id for checkpoint in Catalog.read()}
    recipes = shipped_recipes()
    assert len({recipe.name for recipe in recipes}) == len(recipes) > 1
    assert all(recipe.base in known for recipe in recipes)


def test_what_is_written_is_read_again(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(method={"name": "qlora", "rank": 4})
    (tmp_path / "tiny.yaml").write_text(recipe.to_yaml())
    assert read_recipe(tmp_path / "tiny.yaml") == recipe


def test_settings_can_be_changed() -> None:
    recipe = read_recipe("topics", ["training.epochs=1.5", "method.rank=2", "data.split.seed=7", "title=Other"])
    assert (recipe.training.epochs, recipe.method.rank, recipe.data.split.seed) == (1.5, 2, 7)  # type: ignore[union-attr]
    assert recipe.title == "Other"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.epoch=1", "training.epoch: there is no such setting"),
        ("nonsense=1", "nonsense: there is no such setting"),
        ("training.epochs=many", "training.epochs: "),
        ("training.epochs=-1", "training.epochs: "),
        ("method.name=magic", "method: "),
        ("method.rang=3", "method.lora.rang: there is no such setting"),
        ("training", "not of the form key=value"),
        ("title.of=x", "title holds a value and no keys"),
        ("training.packing=true", "for the task conversational alone"),
        ("data.source={corpus: nosuch}", "data.source"),
    ],
)
def test_a_wrong_setting_is_named(change: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said.replace("[", r"\[")):
        read_recipe("topics", [change])


def test_every_wrong_key_is_named_at_once() -> None:
    with pytest.raises(InvalidInput, match=r"(?s)base: .*publishing: ") as caught:
        check_recipe({"name": "x", "title": "X", "summary": "", "task": "conversational"})
    assert caught.value.field == "recipe"


def test_a_recipe_may_extend_one_that_extends_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("extends: topics\nname: one\ntraining: {epochs: 2}\n", encoding="utf-8")
    second.write_text(f"extends: {first}\ntraining: {{batch_size: 3}}\n", encoding="utf-8")
    recipe = read_recipe(second)
    assert (recipe.name, recipe.base) == ("second", read_recipe("topics").base)
    assert (recipe.training.epochs, recipe.training.batch_size) == (2, 3)
    first.write_text(f"extends: {second}\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"second\.yaml extends itself, by way of first\.yaml"):
        read_recipe(second)


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(SuiteError, match=r"no recipe 'nosuch'; shipped ones are .*topics"):
        read_recipe("nosuch")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1, 2", b"- a list"])
def test_a_file_that_is_no_recipe(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"bad\.yaml (cannot be read|holds no recipe)"):
        read_recipe(tmp_path / "bad.yaml")


def test_only_what_decides_the_training_makes_another_run(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    assert make_recipe(title="Other", **{"evaluation.rows": 5}).digest == recipe.digest
    assert make_recipe(**{"training.seed": 1}).digest != recipe.digest
    assert make_recipe(instruction="Sort:").digest != recipe.digest
