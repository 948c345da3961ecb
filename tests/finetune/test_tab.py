"""The Fine-tuning tab apart from a browser: what its form means, what it draws, and who may publish."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.testclient import TestClient

from finetune.recipe import read_recipe
from finetune.run import background
from finetune.run_folder import Run, Status, run_of
from finetune.tab import publish_route
from finetune.tab.drawing import curve, draw_run, menu_line
from finetune.tab.form import Form, columns_of, guess_columns, name_for
from shared.errors import InvalidInput
from shared.settings import Settings
from tests.finetune.conftest import MakeRecipe

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache")


# -- the form --------------------------------------------------------------------------------------


def test_a_form_as_it_is_means_the_recipe(own: Settings) -> None:
    shipped = read_recipe("topics")
    assert Form("topics", name="topics", epochs=shipped.training.epochs, rank=8).as_recipe(own) == shipped
    assert Form("topics", name="topics").command(own) == "python -m finetune topics"


def test_what_differs_becomes_a_set(own: Settings) -> None:
    form = Form("topics", name="mine", epochs=1, learning_rate=5e-5, batch_size=4, max_length=64, rank=2)
    form = Form(**{**vars(form), "more": "training.max_steps=20\n\n evaluation.rows=12 "})
    recipe = form.as_recipe(own)
    assert (recipe.name, recipe.training.epochs, recipe.training.learning_rate) == ("mine", 1, 5e-5)
    assert (recipe.training.batch_size, recipe.training.max_length, recipe.training.max_steps) == (4, 64, 20)
    assert recipe.method.model_dump()["rank"] == 2
    assert recipe.evaluation.rows == 12
    assert "--set training.learning_rate=5e-05" in form.command(own)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"more": "training.epoch=1"}, "training.epoch: there is no such setting"),
        ({"more": "nonsense"}, "is not of the form key=value"),
        ({"more": "training.max_steps=[1"}, "is no value that YAML knows"),
        ({"more": "publishing.name=.."}, "publishing.name"),
        ({"batch_size": 0.5}, "training.batch_size"),
        ({"learning_rate": 0.0}, "training.learning_rate"),
        ({"name": "../elsewhere"}, "name"),
        ({"folder": "somewhere/else"}, "must be the whole path"),
        ({"folder": "/no/such/place"}, "must be the whole path"),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], said: str, own: Settings) -> None:
    with pytest.raises(InvalidInput) as raised:
        Form("topics", **changed).as_recipe(own)
    assert said in str(raised.value)


def test_rows_that_were_uploaded_outlive_the_page(own: Settings, topics_csv: Path, tmp_path: Path) -> None:
    upload = tmp_path / "tickets.csv"
    upload.write_bytes(topics_csv.read_bytes())
    recipe = Form("topics", upload=str(upload), input="text", target="no").as_recipe(own)
    upload.unlink()
    source: Any = recipe.data.source
    assert source.file.read_bytes() == topics_csv.read_bytes()
    assert source.file.is_relative_to(own.cache_dir)
    assert (recipe.data.input, recipe.data.target) == ("text", "no")
    assert recipe.publishing.licence == "other"  # not that of the recipe's own rows
    assert background.keep_upload(source.file, own) == source.file


def test_a_folder_of_recordings_on_the_server(own: Settings, tmp_path: Path) -> None:
    recipe = Form("genres-wav2vec2", folder=str(tmp_path)).as_recipe(own)
    assert recipe.data.source.model_dump() == {"audio_folder": tmp_path}


def test_columns_are_found_and_guessed(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("id\tMessage\tDepartment\n1\thello\tsales\n")
    columns = columns_of(table)
    assert columns == ["id", "Message", "Department"]
    assert guess_columns(columns, read_recipe("topics")) == ("Message", "Department")
    assert guess_columns(["only"], read_recipe("topics")) == ("only", "only")
    table.write_text("a\tb\n")
    with pytest.raises(InvalidInput, match="holds no rows"):
        columns_of(table)
    assert name_for("topics", Path("my tickets (2).csv")) == "topics-my-tickets-2"
    assert name_for("topics", Path("…….csv")) == "topics-own"


@pytest.mark.parametrize("column", ["@user", "*label", "%c", "[x", "a: b: c", "yes", "1", "Ünï 🙂"])
def test_a_column_may_have_any_name(column: str, own: Settings) -> None:
    assert Form("topics", input=column).as_recipe(own).data.input == column


def test_a_large_number_is_not_rounded(own: Settings) -> None:
    assert Form("topics", max_length=1_234_567).as_recipe(own).training.max_length == 1_234_567


def test_a_table_too_large_for_a_page_is_refused(own: Settings, tmp_path: Path) -> None:
    table = tmp_path / "large.csv"
    table.write_text("text,label\n" * 100)
    with pytest.raises(InvalidInput, match="SUITE_MAX_UPLOAD"):
        Form("topics", upload=str(table)).as_recipe(own.model_copy(update={"max_upload": 100}))
    assert not own.cache_dir.exists()


# -- what is drawn ---------------------------------------------------------------------------------


def test_a_run_is_drawn_as_text(own: Settings, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(title=HOSTILE)
    run = run_of(recipe, own)
    run.result.mkdir(parents=True)
    (run.folder / "recipe.yaml").write_text(recipe.to_yaml())
    run.write(Status(state="failed", error=HOSTILE, step=3, steps=9, trainable=10, parameters=100))
    for step in range(1, 4):
        run.log({"step": step, "loss": 2.0 / step, "seconds": 1.0})
    run.log({"step": 3, "validation_loss": 0.5, "validation_accuracy": 0.75, "seconds": 1.0})
    (run.result / "evaluation.json").write_text(json.dumps(evaluation()))
    drawn = draw_run(run, own)
    assert "<img" not in drawn
    assert "step 3 of 9" in drawn
    assert drawn.count("<svg") == 1  # of one point there is no curve
    assert "0.956" in drawn
    assert "not possible" in drawn
    assert menu_line(run) == "tiny · failed · now"


def evaluation() -> dict[str, Any]:
    tuned = {"name": "tuned", "metrics": {"accuracy": 0.956}, "interval": [0.9, 0.99], "seconds": 3.2, "failed": ""}
    failed = {"name": HOSTILE, "metrics": {}, "interval": [0, 0], "seconds": 0, "failed": HOSTILE}
    sample = {"input": HOSTILE, "tuned": HOSTILE, "right": HOSTILE}
    return {
        "metric": "accuracy",
        "rows": 500,
        "beats_base": True,
        "verdict": HOSTILE,
        "systems": [failed, tuned],
        "samples": [sample],
    }


def test_a_process_that_is_gone_is_told(own: Settings, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    run = run_of(recipe, own)
    run.folder.mkdir(parents=True)
    (run.folder / "recipe.yaml").write_text(recipe.to_yaml())
    run.write(Status(state="training", step=3, steps=9))
    (run.folder / background.OUTPUT).write_text("reading rows\nKilled: <b>\n")
    assert run.state() == "dead"
    drawn = draw_run(run, own)
    assert "Its process is gone" in drawn
    assert "Killed: &lt;b&gt;" in drawn
    with run.locked():
        assert run.state() == "training"
        assert "step 3 of 9" in draw_run(run, own)


def test_who_looks_does_not_hold(own: Settings) -> None:
    run = Run(own.cache_dir / "runs" / "x-1")
    run.folder.mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(lambda _: run.alive(), range(300)))
        looking = [pool.submit(run.alive) for _ in range(300)]
        for _ in range(20):
            with run.locked():  # never Busy because of them
                pass
    assert all(isinstance(look.result(), bool) for look in looking)


def test_a_stop_ends_a_run_however_it_ends(own: Settings, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    run = run_of(recipe, own)
    with run.locked():
        run.write(Status(state="evaluating", step=9, steps=9, trainable=5))
        run.stop_file.touch()
        with run.locked():
            assert run.stop_file.exists()  # taken again by its holder, who is still to obey
    assert run.state() == "stopped"
    run.update(state="waiting")
    assert (run.status().step, run.status().trainable) == (9, 5)
    with run.locked():
        assert not run.stop_file.exists()
    assert run.state() == "dead"


def test_a_recipe_of_another_version_is_said(own: Settings, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x\nfuture: 1\n")
    assert "cannot be read here" in draw_run(Run(tmp_path), own)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e6, 1e6)), max_size=30))
def test_a_curve_stays_in_its_frame(points: list[tuple[int, float]]) -> None:
    drawn = curve([{"step": x, "loss": y} for x, y in sorted(points)], "loss", "", "loss")
    assert bool(drawn) == (len(points) > 1)
    for x, y in re.findall(r"(\S+),(\S+)", " ".join(re.findall(r'points="([^"]*)"', drawn))):
        assert 0 <= float(x) <= 460
        assert 0 <= float(y) <= 170


# -- publishing ------------------------------------------------------------------------------------

TOKEN = "hf_never_to_be_seen"


def test_who_may_not_publish_is_refused(own: Settings, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    run = run_of(recipe, own)
    run.result.mkdir(parents=True)
    (run.folder / "recipe.yaml").write_text(recipe.to_yaml())
    wanted = {"run": run.folder.name, "repo": "user/x", "token": TOKEN}

    def status(settings: Settings, body: Any = wanted, host: str = "http://127.0.0.1", **headers: str) -> int:
        client = TestClient(Starlette(routes=publish_route.routes(settings)), base_url=host)
        content = body if isinstance(body, str) else json.dumps(body)
        said = client.post(
            "/finetune/publish", content=content, headers={"content-type": "application/json", **headers}
        )
        assert TOKEN not in said.text
        return said.status_code

    assert status(own, host="http://evil.example") == 403
    assert status(own, origin="http://evil.example") == 403
    public = own.model_copy(update={"host": "0.0.0.0"}).with_admin_token()
    assert status(public) == 403
    locked = Settings(cache_dir=own.cache_dir, auth="me:secret", admin=True)  # type: ignore[arg-type]
    assert status(locked) == 403  # Gradio's log-in does not cover this route
    assert status(own, **{"content-type": "text/plain"}) == 415
    for body in ("no json", "[]", {**wanted, "more": 1}, {**wanted, "repo": "../x"}, {**wanted, "token": ""}):
        assert status(own, body) == 400
    assert status(own, "x" * 5000) == 400
    assert status(own, {**wanted, "run": "../../etc"}) == 400
    assert status(own, {**wanted, "token": "   "}) == 400
