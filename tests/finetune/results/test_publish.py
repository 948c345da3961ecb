"""Trained checkpoints onto the stand-in Hub through the real client, and back: what goes there, and what does not."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi

from finetune.base import Base, shared_parts
from finetune.cli import main
from finetune.data.split import Item
from finetune.results.loading import find_trained, load_trained
from finetune.results.publish import four_bits, publish
from finetune.run import job
from finetune.run.job import evaluate_again
from finetune.run_folder import run_of
from shared.checkpoints.catalog import Catalog
from shared.errors import InvalidInput, SuiteError, UnknownCheckpoint
from shared.fetching import hub_errors
from shared.fetching.hub_errors import HubRefused, HubUnreachable
from shared.serving.runtime import Runtime
from shared.settings import Settings
from tests.finetune.tiny_results import LABELS, TinyResults, recipe_of
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv
from tests.stand_in_hub.refusals import Refusal

REPO = "user/moods"
ADAPTER = {
    *("README.md", "adapter_config.json", "adapter_model.safetensors", "evaluation.json", "loss.png", "recipe.yaml"),
    *("suite_adapter.json", "tokenizer.json", "tokenizer_config.json", "training.json"),
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", warm_examples=False)


@pytest.fixture
def runtime(
    hub: StandInHub, hub_env: HubEnv, tiny: TinyResults, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Runtime]:
    """A machine that may write to the Hub."""
    tiny.serve_bases(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    monkeypatch.setattr(hub_errors, "BACKOFF", 0.01)
    with shared_parts(settings) as parts:
        yield parts


@pytest.fixture
def result(tiny: TinyResults, tmp_path: Path) -> Path:
    """A result of one's own, with what a folder may hold beside it."""
    folder = tmp_path / "own" / "result"
    shutil.copytree(tiny.sorting, folder)
    (folder / "checkpoint-3").mkdir()
    for name in ("optimizer.pt", "log.jsonl", ".env", "checkpoint-3/optimizer.pt", "training_args.bin"):
        (folder / name).write_text("secret")
    return folder


def on_the_hub(hub: StandInHub, repo: str = REPO) -> dict[str, bytes]:
    return {name: data for name, data in hub.files(repo).items() if name != ".gitattributes"}


def published(folder: Path, runtime: Runtime, repo: str = REPO, **options: Any) -> list[str]:
    said: list[str] = []
    publish(folder, repo, runtime, **{"private": True, "say": said.append} | options)
    return said


@pytest.mark.usefixtures("runtime")
def test_one_command_trains_and_publishes(
    hub: StandInHub, tiny: TinyResults, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tiny.table)
    (tmp_path / "moods.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    monkeypatch.setenv("SUITE_CACHE_DIR", str(settings.cache_dir))
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "moods.yaml"), "--push-to-hub", REPO, "--force"])
    assert ended.value.code == 0
    assert set(on_the_hub(hub)) >= {"adapter_model.safetensors", "evaluation.json", "README.md"}
    assert hub.repository(REPO).private
    assert (settings.cache_dir / "adapters" / "moods" / "adapter_model.safetensors").is_file()


@pytest.mark.usefixtures("runtime")
def test_what_cannot_be_offered_says_why(
    tiny: TinyResults, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(job.shutil, "copytree", full)
    recipe = recipe_of(tiny.table)
    with pytest.raises(SuiteError, match="No space left"):
        job.run_job(recipe, settings, measure=False)
    status = run_of(recipe, settings).status()
    assert (status.state, "could not be put where the suite finds it" in status.error) == ("done", True)


# -- what goes there -------------------------------------------------------------------------------


def test_an_adapter_is_published_private_and_verified(
    hub: StandInHub, hub_env: HubEnv, runtime: Runtime, result: Path
) -> None:
    said: list[str] = []
    address = publish(result, REPO, runtime, private=True, say=said.append)
    assert address == f"{hub_env.endpoint}/{REPO}"
    files = on_the_hub(hub)
    assert set(files) == ADAPTER
    assert hub.repository(REPO).private
    assert files["adapter_model.safetensors"] == (result / "adapter_model.safetensors").read_bytes()
    assert files["loss.png"].startswith(b"\x89PNG")
    assert said == [
        f"created {REPO}, private",
        said[1],
        "verified: 10 files came back byte for byte, and the pulled adapter answers 3 rows as the local one does",
    ]
    assert "uploaded 10 files" in said[1]


def test_nothing_of_this_machine_or_of_the_data_goes_with_it(
    hub: StandInHub, runtime: Runtime, result: Path, tiny: TinyResults
) -> None:
    evaluated = json.loads((result / "evaluation.json").read_text())
    assert evaluated["samples"]
    evaluated["systems"][0]["failed"] = f"{result}/model.safetensors cannot be read"
    (result / "evaluation.json").write_text(json.dumps(evaluated))
    tokenizer = json.loads((result / "tokenizer_config.json").read_text())
    (result / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"name_or_path": str(tiny.bert)}))
    config = json.loads((result / "adapter_config.json").read_text())
    (result / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(tiny.bert)}))

    published(result, runtime)
    files = on_the_hub(hub)
    for private in (str(tiny.table.parent), str(tiny.bert), str(result), str(Path.home() / ".cache"), "hf_writer"):
        assert not [name for name, data in files.items() if private.encode() in data]
    assert yaml.safe_load(files["recipe.yaml"])["data"]["source"] == {"file": "moods.csv"}
    assert json.loads(files["training.json"])["recipe"]["data"]["source"] == {"file": "moods.csv"}
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "user/bert"
    assert json.loads(files["tokenizer_config.json"])["name_or_path"] == tiny.bert.name
    assert json.loads(files["evaluation.json"])["systems"][0]["failed"] == "…/model.safetensors cannot be read"
    assert "Base: user/bert at commit " in files["README.md"].decode()
    assert "samples" not in json.loads(files["evaluation.json"])
    row = tiny.table.read_text().splitlines()[1].split(",")[0]
    assert not [name for name, data in files.items() if row.encode() in data]


def test_a_whole_checkpoint_is_published_for_everybody(hub: StandInHub, runtime: Runtime, tiny: TinyResults) -> None:
    said = published(tiny.head, runtime, private=False)
    files = on_the_hub(hub)
    missing = {"adapter_config.json", "adapter_model.safetensors", "evaluation.json"}
    assert set(files) == (ADAPTER - missing) | {"config.json", "model.safetensors"}
    assert not hub.repository(REPO).private
    assert said[0] == f"created {REPO}, for everybody"
    assert "the pulled checkpoint answers 3 rows" in said[-1]
    assert "> **Not measured.**" in files["README.md"].decode()


def test_what_holds_the_token_is_not_published(hub: StandInHub, runtime: Runtime, result: Path) -> None:
    told = json.loads((result / "suite_adapter.json").read_text())
    (result / "suite_adapter.json").write_text(json.dumps(told | {"example": "my token is hf_writer"}))
    with pytest.raises(SuiteError, match=r"suite_adapter\.json holds the token") as error:
        published(result, runtime)
    assert "hf_writer" not in str(error.value)
    assert ("model", REPO) not in hub.repositories


def test_what_did_not_beat_its_base_says_so(hub: StandInHub, runtime: Runtime, tiny: TinyResults, result: Path) -> None:
    evaluated = json.loads((tiny.replying / "evaluation.json").read_text())
    evaluated |= {"beats_base": False, "lead": [-0.2, 0.1], "verdict": "Not shown to be better."}
    (result / "evaluation.json").write_text(json.dumps(evaluated))
    published(result, runtime)
    assert "> **It did not beat its base.** Not shown to be better." in on_the_hub(hub)["README.md"].decode()


@pytest.mark.parametrize(("checkpoint", "told"), [("SmolLM2-135M-Instruct", "Q4_1"), ("all-MiniLM-L6-v2", "")])
def test_a_base_from_four_bit_weights_is_known(checkpoint: str, told: str) -> None:
    assert four_bits(Base(Catalog.read().choose_by_id(checkpoint), Path())) == told


# -- and back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sorting", "replying", "head"])
def test_the_cards_python_runs_and_answers_as_the_local_one(
    name: str, hub: StandInHub, runtime: Runtime, tiny: TinyResults
) -> None:
    folder = getattr(tiny, name)
    published(folder, runtime)
    code = re.search(r"```python\n(.*?)```", on_the_hub(hub)["README.md"].decode(), re.S)
    assert code is not None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code[1], "README.md", "exec"), {})

    trained = load_trained(folder, None, runtime)
    item = Item(trained.recipe.publishing.example, LABELS[0])
    (answer,) = trained.task.answers(
        trained.model, trained.processor, [item], trained.recipe, trained.labels, lambda *_: None
    )
    said = printed.getvalue().strip()
    assert (said.rpartition(" ")[0] if name != "replying" else said) == answer


def test_a_published_one_is_measured_again_by_its_id(
    hub: StandInHub,
    runtime: Runtime,
    settings: Settings,
    result: Path,
    tiny: TinyResults,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    published(result, runtime)
    with pytest.raises(InvalidInput, match=r"there is no file moods\.csv"):
        evaluate_again(REPO, settings)
    monkeypatch.chdir(tiny.table.parent)
    evaluate_again(REPO, settings)
    assert "7 held-out rows" in capsys.readouterr().out
    folder = find_trained(REPO, runtime)
    assert folder.is_relative_to(settings.cache_dir)
    before, after = (json.loads((place / "evaluation.json").read_text()) for place in (result, folder))
    assert after["systems"][-1]["metrics"] == before["systems"][-1]["metrics"]
    assert {path.name for path in folder.iterdir()} - {"evaluation.md"} == ADAPTER


def test_a_download_that_broke_is_no_checkpoint(
    hub: StandInHub, runtime: Runtime, settings: Settings, result: Path
) -> None:
    published(result, runtime)
    hub.faults.refuse("/storage/", Refusal(403, "Not today."), times=100)
    with pytest.raises(HubRefused, match=r"does not let us read user/moods \(Not today"):
        find_trained(REPO, runtime)
    assert [path for path in settings.cache_dir.rglob("pulled/*/*.json") if path.parent.name.startswith(".")]
    hub.faults.clear()
    assert (find_trained(REPO, runtime) / "adapter_model.safetensors").is_file()


def test_other_repositories_are_not_taken_for_ours(hub: StandInHub, runtime: Runtime) -> None:
    with pytest.raises(UnknownCheckpoint, match=r"was not published by this suite's recipes"):
        find_trained("user/bert", runtime)
    with pytest.raises(UnknownCheckpoint, match=r"the Hub has no repository user/nothing"):
        find_trained("user/nothing", runtime)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"recipe": 1, "labels": []}', '{"recipe": {}, "labels": []}'])
def test_a_description_that_makes_no_sense_is_told(
    content: str, hub: StandInHub, runtime: Runtime, settings: Settings
) -> None:
    hub.add("user/odd", {"training.json": content, "adapter_config.json": "{}", "optimizer.bin": b"pickle"})
    with pytest.raises(SuiteError, match=r"holds no readable training\.json|Field required"):
        load_trained("user/odd", None, runtime)
    assert not list(settings.cache_dir.rglob("optimizer.bin"))


# -- a Hub that fails ------------------------------------------------------------------------------


ASKED = ["/api/repos/create", "/preupload/", "/objects/batch", "/storage/", "/commit/", "/user/moods/resolve/"]


@pytest.mark.parametrize("fault", ["busy", "broken", "cut"])
def test_a_hub_that_fails_now_and_then_gets_it_all(fault: str, hub: StandInHub, runtime: Runtime, result: Path) -> None:
    befall = {"busy": hub.faults.rate_limit, "broken": hub.faults.server_error, "cut": hub.faults.cut}[fault]
    for address in ASKED:
        befall(address)
    said = published(result, runtime)
    assert set(on_the_hub(hub)) == ADAPTER
    assert said[-1].startswith("verified: 10 files")
    asked = {address: [request for request in hub.requests if address in request.path] for address in ASKED}
    # A commit whose answer was lost is there, and is not made twice.
    assert [address for address, requests in asked.items() if len(requests) == 1] == ["/commit/"] * (fault == "cut")
    made = [commit.title for commit in HfApi(endpoint=hub.endpoint).list_repo_commits(REPO)]
    assert made.count("Add the checkpoint") == 1


def test_a_hub_that_is_gone_is_told(hub: StandInHub, runtime: Runtime, result: Path) -> None:
    hub.faults.server_error("/commit/", times=100, status=503)
    with pytest.raises(HubUnreachable, match="the Hub answered 503"):
        published(result, runtime)
    hub.faults.unreachable()
    with pytest.raises(HubUnreachable, match="the Hub cannot be reached"):
        published(result, runtime)


def test_what_comes_back_altered_is_noticed(hub: StandInHub, runtime: Runtime, result: Path) -> None:
    hub.faults.corrupt("/user/moods/resolve/")
    with pytest.raises(HubUnreachable, match="came back from the Hub with another content"):
        published(result, runtime)


# -- who may, and where ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        ("", REPO, "there is no token for the Hub"),
        ("hf_wrong", REPO, "does not accept the token"),
        ("hf wrong\n", REPO, "characters that no token has"),
        ("hf_reader", REPO, "the token may not write to user/moods"),
        ("hf_writer", "somebody/moods", "the token may not write to somebody/moods"),
    ],
)
def test_a_token_that_will_not_do_is_told(
    token: str,
    repo: str,
    words: str,
    hub: StandInHub,
    runtime: Runtime,
    result: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubRefused, match=words) as error:
        published(result, runtime, repo, token=token or None)
    assert not token or token.strip() not in str(error.value)
    assert ("model", repo) not in hub.repositories


def test_a_token_that_is_handed_over_is_used_and_kept_nowhere(
    hub: StandInHub,
    hub_env: HubEnv,
    runtime: Runtime,
    settings: Settings,
    result: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    caplog.set_level(0)
    said = published(result, runtime, token="hf_writer")
    assert set(on_the_hub(hub)) == ADAPTER
    assert "hf_writer" not in "\n".join([*said, caplog.text, *os.environ.values()])
    kept = [path for place in (hub_env.home, settings.cache_dir, result) for path in place.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"hf_writer" in path.read_bytes()]


@pytest.mark.parametrize("repo", ["moods", "user/mo ods", "user/a/b", "../moods", ""])
def test_a_name_that_is_none_is_refused_before_anything_is_asked(
    repo: str, hub: StandInHub, runtime: Runtime, result: Path
) -> None:
    with pytest.raises(InvalidInput, match="user/name"):
        published(result, runtime, repo)
    assert not hub.requests


def test_a_repository_with_something_else_is_left_alone(
    hub: StandInHub, runtime: Runtime, result: Path, tiny: TinyResults
) -> None:
    hub.add(REPO, {"config.json": "{}", "model.safetensors": b"12345678"})
    with pytest.raises(InvalidInput, match=r"repo: user/moods is there already and holds another model"):
        published(result, runtime)
    assert set(on_the_hub(hub)) == {"config.json", "model.safetensors"}
    published(tiny.head, runtime, "user/head")
    with pytest.raises(InvalidInput, match="holds a whole checkpoint"):
        published(result, runtime, "user/head")


def test_publishing_again_is_a_new_commit(hub: StandInHub, runtime: Runtime, result: Path) -> None:
    published(result, runtime, private=False)
    mine = {**on_the_hub(hub), "vocab.txt": b"old", "NOTES.md": b"mine"}
    hub.add(REPO, mine)
    (result / "evaluation.json").unlink()
    said = published(result, runtime)
    assert set(on_the_hub(hub)) == (ADAPTER - {"evaluation.json"}) | {"NOTES.md"}
    assert said[0] == f"{REPO} is private from now on"
    assert hub.repository(REPO).private
    assert published(result, runtime)[-1].startswith("verified")  # nothing has changed
