"""Spaces sent to the stand-in Hub through the real client: created, updated, refused."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

from shared.checkpoints.catalog import Catalog
from shared.errors import InvalidInput
from shared.fetching.hub_errors import HubRefused, HubUnreachable
from shared.publishing import __main__ as command_line
from shared.publishing.assemble import Assembled, assemble
from shared.publishing.card import split
from shared.publishing.push import Target, deploy, preload_lines, with_preload
from shared.serving.space import ROOT
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv
from tests.stand_in_hub.refusals import Refusal

REPO = "user/translation"
MODEL: dict[str, bytes | str] = {
    "config.json": "{}",
    "tokenizer.json": "{}",
    "model.safetensors": b"\0" * 64,
    "model.onnx": b"\0" * 64,
    "README.md": "# A model\n",
}


@pytest.fixture
def writer(hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    return HfApi(endpoint=hub_env.endpoint)


@pytest.fixture
def said() -> list[str]:
    return []


def on_the_hub(hub: StandInHub, repo: str = REPO) -> dict[str, bytes]:
    files = hub.files(repo, repo_type="space")
    files.pop(".gitattributes")
    return files


def expected(hub: StandInHub, name: str, repo: str = REPO) -> Assembled:
    return assemble(name, thumbnail=f"{hub.endpoint}/spaces/{repo}/resolve/main/thumbnail.png")


# -- created and updated -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["audio_genre", "suite"])
def test_a_space_on_the_hub_is_the_folder_byte_for_byte(
    hub: StandInHub, writer: HfApi, said: list[str], name: str
) -> None:
    repo = f"user/{name.replace('_', '-')}"
    address = deploy(name, Target(repo), said.append)
    assembled = expected(hub, name, repo)
    assert on_the_hub(hub, repo) == assembled.files
    assert address == f"{hub.endpoint}/spaces/{repo}"
    assert assembled.listing() in said
    assert said[-1] == f"created: {address}"
    space = hub.repository(repo, "space")
    assert (space.space.sdk, space.private) == ("gradio", False)
    assert writer.space_info(repo).card_data["sdk_version"] == "6.31.0"  # pyright: ignore[reportOptionalSubscript]


def test_an_update_removes_what_is_no_longer_part_of_it(hub: StandInHub, writer: HfApi, said: list[str]) -> None:
    deploy("translation", Target(REPO), said.append)
    writer.upload_file(path_or_fileobj=b"old", path_in_repo="translation/old.py", repo_id=REPO, repo_type="space")
    writer.upload_file(path_or_fileobj=b"changed", path_in_repo="app.py", repo_id=REPO, repo_type="space")
    deploy("translation", Target(REPO), said.append)
    assert on_the_hub(hub) == expected(hub, "translation").files
    assert ".gitattributes" in hub.files(REPO, repo_type="space")
    assert "removed there: translation/old.py" in said
    assert said[-1].startswith("updated: ")


def test_an_update_without_a_change_makes_no_commit(hub: StandInHub, writer: HfApi, said: list[str]) -> None:
    deploy("translation", Target(REPO), said.append)
    before = hub.repository(REPO, "space").find("main").id
    deploy("translation", Target(REPO), said.append)
    assert hub.repository(REPO, "space").find("main").id == before


def test_private_hardware_and_variables(hub: StandInHub, writer: HfApi, said: list[str]) -> None:
    asked = Target(REPO, private=True, hardware="zero-a10g", variables={"SUITE_PROFILE": "auto"})
    deploy("translation", asked, said.append)
    made = hub.repository(REPO, "space")
    assert (made.private, made.space.hardware) == (True, "zero-a10g")
    assert made.space.variables["SUITE_PROFILE"]["value"] == "auto"


def test_an_update_changes_only_what_is_asked_for(hub: StandInHub, writer: HfApi, said: list[str]) -> None:
    deploy("translation", Target(REPO, hardware="cpu-upgrade"), said.append)
    deploy("translation", Target(REPO), said.append)
    made = hub.repository(REPO, "space")
    assert (made.private, made.space.hardware, made.space.variables) == (False, "cpu-upgrade", {})
    again = Target(REPO, private=True, hardware="cpu-basic", variables={"SUITE_MAX_CHARS": "9000"})
    deploy("translation", again, said.append)
    assert (made.private, made.space.hardware) == (True, "cpu-basic")
    assert made.space.variables["SUITE_MAX_CHARS"]["value"] == "9000"


def test_a_busy_hub_is_asked_again(hub: StandInHub, writer: HfApi, said: list[str]) -> None:
    hub.faults.server_error("/api/repos/create", times=2)
    hub.faults.server_error("/commit/main", times=1)
    hub.faults.rate_limit("/preupload/", times=1)
    deploy("translation", Target(REPO), said.append)
    assert on_the_hub(hub) == expected(hub, "translation").files


# -- what is preloaded ---------------------------------------------------------------------------------------


@pytest.fixture
def pinned_here(hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """The sources with a catalog that pins gpt2 at the stand-in's commit, and DialoGPT not at all."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    commit = hub.add("openai-community/gpt2", MODEL)
    for folder in ("shared", "spaces"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "constraints.txt", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tmp_path)
    catalog = yaml.safe_load((tmp_path / "shared" / "checkpoints" / "catalog.yaml").read_text(encoding="utf-8"))
    for entry in catalog["checkpoints"]:
        if entry["id"] in ("openai-community/gpt2", "microsoft/DialoGPT-medium"):
            entry["revision"] = commit if "gpt2" in entry["id"] else ""
    (tmp_path / "shared" / "checkpoints" / "catalog.yaml").write_text(yaml.safe_dump(catalog), encoding="utf-8")
    return tmp_path, commit


def test_pinned_defaults_are_preloaded_with_the_files_they_need(
    hub: StandInHub, writer: HfApi, said: list[str], pinned_here: tuple[Path, str]
) -> None:
    root, commit = pinned_here
    deploy("generation", Target("user/generation"), said.append, root=root)
    card = split(on_the_hub(hub, "user/generation")["README.md"].decode())[0]
    assert card["preload_from_hub"] == [f"openai-community/gpt2 config.json,model.safetensors,tokenizer.json {commit}"]
    assert any("pins no commit" in line and "microsoft/DialoGPT-medium" in line for line in said)


def test_a_repository_that_is_not_there_is_left_out_with_a_remark(hub: StandInHub, writer: HfApi) -> None:
    lines, remarks = preload_lines([Catalog.read().choose_by_id("google-bert/bert-base-uncased")], writer)
    assert lines == []
    assert "google-bert/bert-base-uncased is not preloaded" in remarks[0]


def test_a_hub_that_cannot_be_reached_is_one_remark(hub: StandInHub, hub_env: HubEnv, said: list[str]) -> None:
    hub.faults.unreachable()
    assembled = with_preload("generation", HfApi(endpoint=hub_env.endpoint), said.append)
    assert "preload_from_hub" not in split(assembled.files["README.md"].decode())[0]
    assert len(said) == 1
    assert said[0].startswith("nothing is preloaded")
    assert "kept" not in said[0], "nothing was fetched"


# -- refused -------------------------------------------------------------------------------------------------


def test_without_a_token_it_says_how_to_get_one(hub: StandInHub, hub_env: HubEnv) -> None:
    with pytest.raises(HubRefused, match="hf auth login"):
        deploy("translation", Target(REPO))
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "words"),
    [("hf_reader", "may not write to user/translation"), ("hf_other", "may not write"), ("hf_nobody", "not accept")],
)
def test_a_token_that_may_not_write_is_refused_in_words(
    hub: StandInHub, hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch, said: list[str], token: str, words: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubRefused, match=words):
        deploy("translation", Target(REPO), said.append)
    assert ("space", REPO) not in hub.repositories


def test_the_space_of_somebody_else_is_not_changed(
    hub: StandInHub, hub_env: HubEnv, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    hub.add(REPO, {"app.py": "print('mine')"}, repo_type="space")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubRefused, match="may not write"):
        deploy("translation", Target(REPO), said.append)
    assert hub.files(REPO, repo_type="space") == {"app.py": b"print('mine')"}


def test_hardware_that_must_be_paid_for(hub: StandInHub, writer: HfApi, said: list[str]) -> None:
    hub.faults.refuse("/api/repos/create", Refusal(402, "Payment required"))
    with pytest.raises(HubRefused, match="wants t4-small paid for"):
        deploy("translation", Target(REPO, hardware="t4-small"), said.append)


def test_a_hub_that_stays_away(hub: StandInHub, writer: HfApi, said: list[str]) -> None:
    hub.faults.unreachable()
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        deploy("translation", Target(REPO), said.append)


@pytest.mark.parametrize("repo", ["translation", "a/b/c", "../x/y", "user/", "us er/x"])
def test_a_repository_is_user_and_name(repo: str) -> None:
    with pytest.raises(InvalidInput, match="--repo"):
        Target(repo)


@pytest.mark.parametrize("name", ["SUITE_ADMIN_TOKEN", "SUITE_AUTH", "HF_TOKEN", "MY_PASSWORD", "no name"])
def test_secrets_are_no_variables(name: str) -> None:
    with pytest.raises(InvalidInput, match="--variable"):
        Target(REPO, variables={name: "x"})


def test_hardware_is_one_the_hub_has() -> None:
    with pytest.raises(InvalidInput, match="cpu-basic"):
        Target(REPO, hardware="warp-drive")


# -- the command line ----------------------------------------------------------------------------------------


def test_a_dry_run_shows_everything_and_asks_nobody(
    hub: StandInHub, writer: HfApi, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--hardware", "cpu-basic", "--variable", "SUITE_PROFILE=auto", "--private", "--dry-run"]
    assert command_line.main(["deploy", "translation", "--repo", REPO, *options]) == 0
    shown = capsys.readouterr().out
    assert assemble("translation").listing() in shown
    assert "sdk_version: 6.31.0" in shown
    assert f"would go to the Space {REPO} (private) on cpu-basic" in shown
    assert "SUITE_PROFILE=auto" in shown
    assert hub.requests == []


def test_the_readme_shows_what_a_dry_run_prints(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    [block] = [block for block in blocks if "shared.publishing" in block]
    command, *shown = block.splitlines()
    assert command.startswith("$ python -m shared.publishing ")
    assert command_line.main(command.split()[4:]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line != "..." and line not in printed] == []


def test_the_command_deploys(hub: StandInHub, writer: HfApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["deploy", "translation", "--repo", REPO, "--variable", "SUITE_MAX_CHARS=100"]) == 0
    assert f"created: {hub.endpoint}/spaces/{REPO}" in capsys.readouterr().out
    assert hub.repository(REPO, "space").space.variables["SUITE_MAX_CHARS"]["value"] == "100"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["deploy", "nope", "--repo", REPO, "--dry-run"], 1, "no Space called 'nope'"),
        (["deploy", "translation", "--repo", REPO], 1, "no token"),
        (["deploy", "translation"], 2, "--repo"),
        (["space", "translation"], 2, "--out"),
    ],
)
def test_mistakes_are_named(
    hub_env: HubEnv, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert command_line.main(arguments) == code
    assert words in capsys.readouterr().err


def test_the_command_assembles_a_folder(
    hub_env: HubEnv, hub: StandInHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command_line.main(["space", "translation", "--out", str(out), "--offline"]) == 0
    assert hub.requests == []
    assert (out / "app.py").read_bytes() == assemble("translation").files["app.py"]
    assert f"assembled in {out}" in capsys.readouterr().out
