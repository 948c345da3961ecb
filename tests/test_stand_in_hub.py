"""The stand-in Hub through the real clients: what they ask is answered, what is pushed is what is pulled, and every
failure that can be ordered is the one the client reports."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    constants,
    errors,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv
from tests.stand_in_hub.refusals import Refusal

WEIGHTS = bytes(range(256)) * 400
FILES: dict[str, bytes | str] = {"config.json": '{"a": 1}', "model.safetensors": WEIGHTS, "deep/er/notes.txt": "hello"}


@pytest.fixture
def api(hub_env: HubEnv) -> HfApi:
    return HfApi(token="hf_writer")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to push: small and large files, nested, one of them empty."""
    folder = tmp_path / "pushed"
    for name, data in {"README.md": "---\nlicense: mit\n---\n# Tiny\n", "empty.txt": "", **FILES}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def contents(folder: str | Path) -> dict[str, bytes]:
    folder = Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- repositories, pushed and pulled -----------------------------------------------------------------------------------


def test_who_am_i(hub: StandInHub, api: HfApi) -> None:
    about = api.whoami()
    assert (about["name"], about["auth"]["accessToken"]["role"]) == ("user", "write")
    with pytest.raises(errors.HfHubHTTPError, match="Invalid user token") as caught:
        api.whoami(token="hf_unheard_of")
    assert caught.value.response.status_code == 401


@pytest.mark.parametrize(("kind", "prefix"), [("model", ""), ("dataset", "datasets/"), ("space", "spaces/")])
def test_a_repository_is_created_once(hub: StandInHub, api: HfApi, kind: str, prefix: str) -> None:
    def create(**how: Any) -> str:
        sdk = {"space_sdk": "gradio"} if kind == "space" else {}
        return api.create_repo("user/tiny", repo_type=kind, **sdk, **how)

    assert create(private=True) == f"{hub.endpoint}/{prefix}user/tiny"
    assert hub.repository("user/tiny", kind).private
    assert create(exist_ok=True) == f"{hub.endpoint}/{prefix}user/tiny"
    with pytest.raises(errors.HfHubHTTPError, match="already created") as caught:
        create()
    assert caught.value.response.status_code == 409
    api.delete_repo("user/tiny", repo_type=kind)
    assert not api.repo_exists("user/tiny", repo_type=kind)


def test_names_and_namespaces(api: HfApi) -> None:
    assert api.create_repo("tiny").repo_id == "user/tiny"
    with pytest.raises(errors.HfHubHTTPError, match='under the namespace "other"'):
        api.create_repo("other/tiny")
    with pytest.raises(errors.HfHubHTTPError, match="don't have the rights"):
        api.create_repo("user/another", token="hf_reader")


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_what_is_pushed_is_what_is_pulled(hub: StandInHub, api: HfApi, folder: Path, kind: str) -> None:
    api.create_repo("user/tiny", repo_type=kind)
    pushed = api.upload_folder(repo_id="user/tiny", folder_path=folder, repo_type=kind)
    pulled = contents(snapshot_download("user/tiny", repo_type=kind))
    assert ".gitattributes" in pulled
    assert pulled == hub.files("user/tiny", repo_type=kind)
    assert {name: pulled[name] for name in contents(folder)} == contents(folder)
    assert pushed.oid == api.repo_info("user/tiny", repo_type=kind).sha
    assert [r.path for r in hub.requests if r.method == "PUT"], "the large file must have gone to the storage"


def test_what_is_there_is_not_sent_again(hub: StandInHub, api: HfApi, folder: Path) -> None:
    api.create_repo("user/tiny")
    first = api.upload_folder(repo_id="user/tiny", folder_path=folder)
    hub.requests.clear()
    assert api.upload_folder(repo_id="user/tiny", folder_path=folder).oid == first.oid
    assert not [r for r in hub.requests if r.method == "PUT" or "/commit/" in r.path]


def test_commits_with_deletions(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny", FILES)
    operations = [
        CommitOperationAdd("new.bin", io.BytesIO(b"\0\1\2")),
        CommitOperationAdd("config.json", b"{}"),
        CommitOperationDelete("deep/"),
        CommitOperationDelete("model.safetensors"),
    ]
    made = api.create_commit("user/tiny", operations, commit_message="all at once", commit_description="and why")
    assert hub.files("user/tiny") == {"config.json": b"{}", "new.bin": b"\0\1\2"}
    newest = api.list_repo_commits("user/tiny")[0]
    assert (newest.commit_id, newest.title, newest.message) == (made.oid, "all at once", "and why")

    api.upload_file(repo_id="user/tiny", path_or_fileobj=b"text", path_in_repo="notes/a.txt")
    api.delete_file("new.bin", "user/tiny")
    api.delete_files("user/tiny", ["notes/*"])
    assert hub.files("user/tiny") == {"config.json": b"{}"}
    with pytest.raises(errors.EntryNotFoundError, match="doesn't exist"):
        api.delete_file("gone.txt", "user/tiny")


def test_a_commit_knows_what_it_was_made_upon(hub: StandInHub, api: HfApi) -> None:
    old = hub.add("user/tiny", FILES)
    hub.add("user/tiny", {"config.json": "{}"})
    with pytest.raises(errors.HfHubHTTPError, match="A commit has happened since") as caught:
        api.upload_file(repo_id="user/tiny", path_or_fileobj=b"x", path_in_repo="x", parent_commit=old)
    assert caught.value.response.status_code == 412


def test_a_card_with_broken_metadata_is_refused(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny", FILES)
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        api.upload_file(repo_id="user/tiny", path_or_fileobj=b"---\nlicense: [mit\n---\n", path_in_repo="README.md")
    assert "README.md" not in hub.files("user/tiny")


def test_ids_come_from_the_content(hub: StandInHub) -> None:
    with StandInHub() as another:
        assert hub.add("user/tiny", FILES) == another.add("user/tiny", FILES)
        assert hub.add("user/tiny", {"a": "1"}) != another.add("user/tiny", {"a": "2"})


@pytest.mark.parametrize("name", ["main", "the first", "its beginning", "a branch", "a tag"])
def test_revisions(hub: StandInHub, api: HfApi, name: str) -> None:
    first = hub.add("user/tiny", {"a.txt": "first"})
    second = hub.add("user/tiny", {"a.txt": "second"})
    api.create_branch("user/tiny", branch="trial/one", revision=first)
    api.upload_file(repo_id="user/tiny", path_or_fileobj=b"third", path_in_repo="a.txt", revision="trial/one")
    api.create_tag("user/tiny", tag="v1", revision=first)
    revision, expected = {
        "main": ("main", "second"),
        "the first": (first, "first"),
        "its beginning": (first[:7], "first"),
        "a branch": ("trial/one", "third"),
        "a tag": ("v1", "first"),
    }[name]
    assert Path(hf_hub_download("user/tiny", "a.txt", revision=revision)).read_text() == expected
    assert contents(snapshot_download("user/tiny", revision=revision)) == {"a.txt": expected.encode()}
    assert api.model_info("user/tiny").sha == second
    refs = api.list_repo_refs("user/tiny")
    assert ({b.name for b in refs.branches}, {t.name for t in refs.tags}) == ({"main", "trial/one"}, {"v1"})


# -- what there is to know of a repository -----------------------------------------------------------------------------


def test_model_info(hub: StandInHub, api: HfApi) -> None:
    from safetensors.torch import save

    weights = save({"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.float16)})
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": 2}
    card = {"license": "mit", "language": ["en", "es"], "tags": ["tiny"], "base_model": "user/base"}
    files = {"config.json": json.dumps(config), "model.safetensors": weights}
    sha = hub.add("user/tiny", files, card=card, gated="manual")
    info = api.model_info("user/tiny", files_metadata=True)
    assert (info.id, info.sha, info.author, info.private, info.disabled) == ("user/tiny", sha, "user", False, False)
    assert (info.gated, info.pipeline_tag, info.library_name) == ("manual", "text-generation", "transformers")
    assert info.config == {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    assert info.safetensors is not None
    assert (info.safetensors.parameters, info.safetensors.total) == ({"F32": 12, "F16": 5}, 17)
    assert info.card_data is not None
    assert (info.card_data.license, info.card_data.base_model) == ("mit", "user/base")
    assert {"transformers", "gpt2", "license:mit", "en", "tiny", "base_model:user/base"} <= set(info.tags or [])
    siblings = {s.rfilename: s for s in info.siblings or []}
    assert set(siblings) == {"README.md", "config.json", "model.safetensors"}
    assert siblings["config.json"].size == len(json.dumps(config))
    assert siblings["config.json"].lfs is None
    large = siblings["model.safetensors"]
    assert large.lfs is not None
    assert (large.size, large.lfs.size) == (len(weights), len(weights))
    assert large.lfs.sha256 == hub.repository("user/tiny").find("main").files["model.safetensors"].sha256

    some = api.model_info("user/tiny", expand=["safetensors", "gated"])
    assert some.safetensors == info.safetensors
    assert (some.gated, some.siblings, some.tags) == ("manual", None, None)
    assert all(s.size is None for s in api.model_info("user/tiny").siblings or [])


def test_an_adapter_names_its_base(hub: StandInHub, api: HfApi) -> None:
    adapter = {"base_model_name_or_path": "user/base", "task_type": "CAUSAL_LM", "peft_type": "LORA"}
    hub.add("user/lora", {"adapter_config.json": json.dumps(adapter), "adapter_model.safetensors": WEIGHTS})
    info = api.model_info("user/lora")
    assert info.library_name == "peft"
    assert info.config == {"peft": {"base_model_name_or_path": "user/base", "task_type": "CAUSAL_LM"}}


def test_listings(hub: StandInHub, api: HfApi) -> None:
    sha = hub.add("user/tiny", FILES)
    assert api.list_repo_files("user/tiny") == sorted(FILES)
    top = {entry.path: entry for entry in api.list_repo_tree("user/tiny")}
    assert set(top) == {"config.json", "model.safetensors", "deep"}
    assert isinstance(top["deep"], RepoFolder)
    large = top["model.safetensors"]
    assert isinstance(large, RepoFile)
    assert large.lfs is not None
    assert large.size == large.lfs.size == len(WEIGHTS)
    assert [e.path for e in api.list_repo_tree("user/tiny", "deep", recursive=True)] == [
        "deep/er",
        "deep/er/notes.txt",
    ]
    with pytest.raises(errors.EntryNotFoundError):
        list(api.list_repo_tree("user/tiny", "shallow"))

    hub.add("user/tiny", {**FILES, "config.json": "{}"})
    found = api.get_paths_info("user/tiny", ["deep", "model.safetensors", "nothing"], expand=True)
    assert [entry.path for entry in found] == ["deep", "model.safetensors"]
    assert all(entry.last_commit is not None and entry.last_commit.oid == sha for entry in found)

    assert api.repo_exists("user/tiny")
    assert not api.repo_exists("user/other")
    assert not api.repo_exists("user/tiny", repo_type="dataset")
    assert api.file_exists("user/tiny", "deep/er/notes.txt")
    assert not api.file_exists("user/tiny", "deep")
    assert api.revision_exists("user/tiny", sha)
    assert not api.revision_exists("user/tiny", "f" * 40)


def test_finding_models(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny-gpt2", FILES, card={"pipeline_tag": "text-generation", "tags": ["toy"]})
    hub.add("user/tiny-bert", FILES, card={"pipeline_tag": "fill-mask"})
    hub.add("other/gpt2-small", FILES, card={"pipeline_tag": "text-generation"}, private=True)
    hub.add("user/tiny-data", {"a.csv": "x"}, repo_type="dataset")

    def found(**query: Any) -> list[str]:
        return [model.id for model in api.list_models(**query)]

    assert found(search="TINY") == ["user/tiny-bert", "user/tiny-gpt2"]
    assert found(search="tiny", limit=1) == ["user/tiny-bert"]
    assert found(search="tiny gpt2", author="user") == ["user/tiny-gpt2"]
    assert found(pipeline_tag="text-generation") == ["user/tiny-gpt2"]
    assert found(filter=["toy", "text-generation"]) == ["user/tiny-gpt2"]
    assert found(pipeline_tag="text-generation", token="hf_other") == ["other/gpt2-small", "user/tiny-gpt2"]
    assert found(search="nothing of the kind") == []
    assert next(iter(api.list_models(search="tiny-bert"))).pipeline_tag == "fill-mask"
    assert [dataset.id for dataset in api.list_datasets(search="tiny")] == ["user/tiny-data"]


# -- downloads ---------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.add("user/tiny", FILES)
    for name, data in (("model.safetensors", WEIGHTS), ("deep/er/notes.txt", b"hello")):
        path = Path(hf_hub_download("user/tiny", name))
        assert path.is_relative_to(hub_env.cache_dir)
        assert path.read_bytes() == data
        assert hub.sent(name.split("/")[-1]) == len(data)
        assert hf_hub_download("user/tiny", name) == str(path)
        assert hub.sent(name.split("/")[-1]) == len(data)


def test_only_what_is_wanted_is_fetched(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.add("user/tiny", {**FILES, "model.onnx": WEIGHTS, "other.gguf": WEIGHTS})
    found = contents(snapshot_download("user/tiny", allow_patterns=["*.json", "*.safetensors"]))
    assert found == {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS}
    assert hub.sent("/storage/") == len(WEIGHTS)


def test_the_token_stays_on_the_hub(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.add("user/tiny", FILES, private=True)
    hf_hub_download("user/tiny", "model.safetensors", token="hf_writer")
    asked = {("/storage/" in r.path, "authorization" in r.headers) for r in hub.requests}
    assert asked == {(False, True), (True, False)}
    # Nor is the storage open to those who know the SHA-256 alone.
    sha256 = hub.repository("user/tiny").find("main").files["model.safetensors"].sha256
    assert httpx2.get(f"{hub.storage_address}/storage/{sha256}/model.safetensors").status_code == 403


def test_files_in_parts(hub: StandInHub, api: HfApi) -> None:
    from safetensors.torch import save

    weights = save({"a": torch.zeros(300, 300)})
    hub.add("user/tiny", {"model.safetensors": weights, "a.txt": "0123456789"})
    metadata = api.get_safetensors_metadata("user/tiny")
    assert metadata.parameter_count == {"F32": 90_000}
    assert hub.sent("/storage/") == 100_001
    assert [r.range for r in hub.requests if "/storage/" in r.path] == ["bytes=0-100000"]

    def part(asked: str) -> httpx2.Response:
        return httpx2.get(f"{hub.endpoint}/user/tiny/resolve/main/a.txt", headers={"Range": asked})

    assert [(r.status_code, r.text) for r in map(part, ["bytes=2-4", "bytes=7-", "bytes=-2", "bytes=8-99"])] == [
        (206, "234"),
        (206, "789"),
        (206, "89"),
        (206, "89"),
    ]
    assert part("bytes=2-4").headers["Content-Range"] == "bytes 2-4/10"
    assert part("bytes=10-").status_code == 416


def test_the_hub_as_a_file_system(hub: StandInHub, hub_env: HubEnv) -> None:
    """As `datasets` reads and writes it."""
    hub.add("user/data", {"a/x.csv": "1,2", "a/y.bin": WEIGHTS}, repo_type="dataset")
    files = HfFileSystem(token="hf_writer")
    assert files.glob("datasets/user/data/**/*.csv") == ["datasets/user/data/a/x.csv"]
    with files.open("datasets/user/data/a/y.bin", "rb") as file:
        file.seek(1000)
        assert file.read(5) == WEIGHTS[1000:1005]
    with files.open("datasets/user/data/b.txt", "w") as file:
        file.write("hello")
    assert hub.files("user/data", repo_type="dataset")["b.txt"] == b"hello"


def test_the_headers_of_a_file(hub: StandInHub) -> None:
    sha = hub.add("user/tiny", FILES)
    files = hub.repository("user/tiny").find("main").files
    small = httpx2.head(f"{hub.endpoint}/user/tiny/resolve/main/config.json")
    assert (small.status_code, small.headers["Content-Length"], small.content) == (200, "8", b"")
    git = subprocess.run(["git", "hash-object", "--stdin"], input=b'{"a": 1}', capture_output=True, check=True)
    assert small.headers["ETag"] == f'"{git.stdout.decode().strip()}"'
    large = httpx2.head(f"{hub.endpoint}/user/tiny/resolve/main/model.safetensors")
    assert large.status_code == 302
    assert large.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert large.headers["X-Linked-ETag"] == f'"{files["model.safetensors"].sha256}"'
    assert small.headers["X-Repo-Commit"] == large.headers["X-Repo-Commit"] == sha
    assert not [name for name in large.headers if "xet" in name.lower()]


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_what_is_not_there(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny", FILES)
    with pytest.raises(errors.RepositoryNotFoundError, match="Repository Not Found") as caught:
        api.model_info("user/nothing")
    assert caught.value.response.status_code == 404
    with pytest.raises(errors.RepositoryNotFoundError, match="Invalid username or password") as caught:
        api.model_info("user/nothing", token=False)
    assert caught.value.response.status_code == 401
    with pytest.raises(errors.RevisionNotFoundError):
        hf_hub_download("user/tiny", "config.json", revision="nope")
    with pytest.raises(errors.RemoteEntryNotFoundError):
        hf_hub_download("user/tiny", "nope.json")
    with pytest.raises(errors.RepositoryNotFoundError):
        snapshot_download("user/nothing")
    with pytest.raises(errors.RepositoryNotFoundError):
        api.upload_file(repo_id="user/nothing", path_or_fileobj=b"x", path_in_repo="x")
    with pytest.raises(errors.HfHubHTTPError, match="can't find the page"):
        list(api.get_repo_discussions("user/tiny"))


def test_a_wrong_token(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.add("user/tiny", FILES)
    with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials in Authorization header") as caught:
        HfApi(token="hf_wrong").model_info("user/tiny")
    assert not isinstance(caught.value, errors.RepositoryNotFoundError)
    with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials"):
        hf_hub_download("user/tiny", "config.json", token="hf_wrong")


def test_private_repositories(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny", FILES, private=True)
    assert api.model_info("user/tiny").private
    for token in (False, "hf_other"):
        with pytest.raises(errors.RepositoryNotFoundError) as caught:
            hf_hub_download("user/tiny", "config.json", token=token)
        assert not isinstance(caught.value, errors.GatedRepoError)
    hub.grant("user/tiny", "other")
    assert Path(hf_hub_download("user/tiny", "config.json", token="hf_other")).read_bytes() == b'{"a": 1}'
    api.update_repo_settings("user/tiny", private=False)
    assert not api.model_info("user/tiny", token=False).private


def test_gated_repositories(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny", FILES, gated=True)
    assert api.model_info("user/tiny", token=False).gated == "auto"
    assert api.list_repo_files("user/tiny", token=False) == sorted(FILES)
    with pytest.raises(
        errors.GatedRepoError, match=r"Access to model user/tiny is restricted.*Please log in"
    ) as caught:
        hf_hub_download("user/tiny", "config.json", token=False)
    assert caught.value.response.status_code == 401
    with pytest.raises(errors.GatedRepoError, match="not in the authorized list") as caught:
        snapshot_download("user/tiny", token="hf_other")
    assert caught.value.response.status_code == 403
    hub.grant("user/tiny", "other")
    assert contents(snapshot_download("user/tiny", token="hf_other")) == hub.files("user/tiny")


def test_a_disabled_repository(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny", FILES)
    hub.repository("user/tiny").disabled = True
    with pytest.raises(errors.DisabledRepoError):
        api.model_info("user/tiny")


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [("hf_reader", 403, "write token"), ("hf_other", 403, "write access"), (False, 401, "Invalid username")],
)
def test_who_may_not_write(hub: StandInHub, api: HfApi, token: str | bool, status: int, words: str) -> None:
    hub.add("user/tiny", FILES)
    with pytest.raises(errors.HfHubHTTPError, match=words) as caught:
        api.upload_file(repo_id="user/tiny", path_or_fileobj=b"x", path_in_repo="x", token=token)
    assert caught.value.response.status_code == status
    assert sorted(hub.files("user/tiny")) == sorted(FILES)


# -- Spaces ------------------------------------------------------------------------------------------------------------


def test_a_space(hub: StandInHub, api: HfApi) -> None:
    api.create_repo("user/demo", repo_type="space", space_sdk="gradio", space_hardware="t4-small")  # pyright: ignore[reportArgumentType]
    assert api.get_space_runtime("user/demo").stage == "NO_APP_FILE"
    api.upload_file(repo_id="user/demo", path_or_fileobj=b"print()", path_in_repo="app.py", repo_type="space")
    runtime = api.get_space_runtime("user/demo")
    assert (runtime.stage, runtime.hardware, runtime.requested_hardware) == ("RUNNING", "t4-small", "t4-small")
    assert api.add_space_variable("user/demo", "MODEL", "user/tiny")["MODEL"].value == "user/tiny"
    api.add_space_secret("user/demo", "HF_TOKEN", "hf_hidden", description="to read")
    assert hub.repository("user/demo", "space").space.secrets["HF_TOKEN"]["value"] == "hf_hidden"
    assert api.get_space_secrets("user/demo")["HF_TOKEN"].description == "to read"
    assert not any(b"hf_hidden" in r.body for r in hub.requests if r.method == "GET")
    assert api.delete_space_variable("user/demo", "MODEL") == api.get_space_variables("user/demo") == {}
    assert api.request_space_hardware("user/demo", "cpu-basic").requested_hardware == "cpu-basic"  # pyright: ignore[reportArgumentType]
    hub.repository("user/demo", "space").space.stage = "BUILD_ERROR"
    info = api.space_info("user/demo")
    assert info.runtime is not None
    assert (info.sdk, info.runtime.stage) == ("gradio", "BUILD_ERROR")
    with pytest.raises(errors.HfHubHTTPError, match="write access"):
        api.add_space_secret("user/demo", "HF_TOKEN", "x", token="hf_other")


# -- transformers ------------------------------------------------------------------------------------------------------


def test_a_model_and_its_tokenizer_go_there_and_back(
    hub: StandInHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    torch.manual_seed(7)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=16, n_embd=8, n_layer=1, n_head=2)).eval()
    words = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["<unk>", "a", "b", "c", "d", "e", "f", "g"])}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    model.save_pretrained(tmp_path / "model", push_to_hub=True, repo_id="user/tiny-gpt2")
    tokenizer.push_to_hub("user/tiny-gpt2")

    assert hub.files("user/tiny-gpt2")["model.safetensors"] == (tmp_path / "model/model.safetensors").read_bytes()
    info = api.model_info("user/tiny-gpt2")
    assert info.safetensors is not None
    assert info.safetensors.total == sum(p.numel() for p in model.parameters())
    again = AutoModelForCausalLM.from_pretrained("user/tiny-gpt2").eval()
    ids = AutoTokenizer.from_pretrained("user/tiny-gpt2")("g a d b", return_tensors="pt")["input_ids"]
    assert ids.tolist() == [[7, 1, 4, 2]]
    with torch.inference_mode():
        assert torch.equal(again(ids).logits, model(ids).logits)


# -- failures on demand ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_a_client_asks_again(hub: StandInHub, hub_env: HubEnv, status: int) -> None:
    hub.add("user/tiny", {"config.json": "{}"})
    if status == 429:
        hub.faults.rate_limit("config.json", retry_after=0, method="HEAD")
    else:
        hub.faults.server_error("config.json", method="HEAD")
    assert Path(hf_hub_download("user/tiny", "config.json")).read_bytes() == b"{}"
    assert [r.status for r in hub.requests if r.method == "HEAD"] == [status, 200]


def test_an_upload_is_tried_again(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny", {"config.json": "{}"})
    hub.faults.server_error("/storage/", method="PUT")
    api.upload_file(repo_id="user/tiny", path_or_fileobj=WEIGHTS, path_in_repo="model.safetensors")
    assert [r.status for r in hub.requests if r.method == "PUT"] == [503, 200]
    assert hub.files("user/tiny")["model.safetensors"] == WEIGHTS


def test_errors_that_stay(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny", FILES)
    hub.faults.rate_limit("/api/models", times=float("inf"), retry_after=42)
    with pytest.raises(errors.HfHubHTTPError, match="Retry after 42 seconds") as caught:
        api.model_info("user/tiny")
    assert caught.value.response.headers["Retry-After"] == "42"
    hub.faults.clear()
    hub.faults.server_error("user/tiny", status=500)
    with pytest.raises(errors.HfHubHTTPError, match="500"):
        api.model_info("user/tiny")
    hub.faults.refuse("user/tiny", Refusal(402, "Only with a subscription."))
    with pytest.raises(errors.HfHubHTTPError, match="Only with a subscription"):
        api.model_info("user/tiny")
    assert api.model_info("user/tiny").id == "user/tiny"


def test_a_cut_download_goes_on_where_it_was(hub: StandInHub, hub_env: HubEnv) -> None:
    weights = os.urandom(24_000_000)
    hub.add("user/tiny", {"model.safetensors": weights})
    hub.faults.cut("/storage/", at=0.5)
    assert Path(hf_hub_download("user/tiny", "model.safetensors")).read_bytes() == weights
    first, second = (r for r in hub.requests if "/storage/" in r.path)
    assert first.sent == 12_000_000
    # The client writes pieces of this size, and forgets what had arrived of the next.
    kept = constants.DOWNLOAD_CHUNK_SIZE
    assert (second.range, second.status, second.sent) == (f"bytes={kept}-", 206, len(weights) - kept)


def test_a_body_waits_at_a_gate(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.add("user/tiny", {"model.safetensors": WEIGHTS})
    gate = hub.faults.gate("/storage/", at=0.25)
    paths: list[str] = []
    thread = threading.Thread(target=lambda: paths.append(hf_hub_download("user/tiny", "model.safetensors")))
    thread.start()
    eventually(lambda: hub.sent("/storage/") == len(WEIGHTS) // 4)
    thread.join(0.1)
    assert thread.is_alive()
    gate.set()
    thread.join(10)
    assert Path(paths[0]).read_bytes() == WEIGHTS


def test_a_slow_body_is_slow_until_all_is_clear(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.add("user/tiny", {"model.safetensors": WEIGHTS})
    hub.faults.slow("/storage/", bytes_per_second=2_000)  # 50 seconds for the whole
    paths: list[str] = []
    thread = threading.Thread(target=lambda: paths.append(hf_hub_download("user/tiny", "model.safetensors")))
    thread.start()
    eventually(lambda: 0 < hub.sent("/storage/") < len(WEIGHTS) // 4)
    hub.faults.clear()
    thread.join(10)
    assert Path(paths[0]).read_bytes() == WEIGHTS


def test_corrupt_bytes_have_the_right_size(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.add("user/tiny", {"model.safetensors": WEIGHTS})
    hub.faults.corrupt("/storage/")
    got = Path(hf_hub_download("user/tiny", "model.safetensors")).read_bytes()
    assert len(got) == len(WEIGHTS)
    assert sum(a != b for a, b in zip(got, WEIGHTS, strict=True)) == 2


def test_an_unreachable_hub(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny", FILES)
    cached = hf_hub_download("user/tiny", "config.json")
    hub.faults.unreachable()
    with pytest.raises(httpx2.ConnectError):
        api.model_info("user/tiny")
    assert hf_hub_download("user/tiny", "config.json") == cached
    hub.faults.clear()
    assert api.model_info("user/tiny").id == "user/tiny"


def test_a_hub_that_does_not_answer(hub: StandInHub, api: HfApi) -> None:
    hub.add("user/tiny", FILES)
    answer = hub.faults.hang("/api/models", times=1)
    with pytest.raises(httpx2.ReadTimeout):
        api.model_info("user/tiny", timeout=0.2)
    assert [r.status for r in hub.requests] == [0]
    answer.set()
    eventually(lambda: hub.requests[0].status == 200)
    assert api.model_info("user/tiny", timeout=5).id == "user/tiny"


@pytest.mark.parametrize("how", ["closed", "unreachable"])
def test_all_that_hangs_is_ended(hub_env: HubEnv, how: str) -> None:
    before = set(threading.enumerate())
    with StandInHub() as hub:
        hub.add("user/tiny", {"config.json": "{}", "model.safetensors": WEIGHTS})
        hub.faults.hang("/api/models")
        hub.faults.gate("/storage/")
        failed: list[BaseException] = []

        def ask(path: str) -> None:
            try:
                httpx2.get(f"{hub.endpoint}/{path}", timeout=60, follow_redirects=True)
            except httpx2.TransportError as error:
                failed.append(error)

        paths = ["api/models/user/tiny", "user/tiny/resolve/main/model.safetensors"]
        clients = [threading.Thread(target=ask, args=(path,)) for path in paths]
        for client in clients:
            client.start()
        eventually(lambda: len(hub.requests) == 3)
        eventually(lambda: hub.sent("/storage/") == len(WEIGHTS) // 2)
        if how == "unreachable":
            hub.faults.unreachable()
    for client in clients:
        client.join(10)
    assert len(failed) == 2
    assert set(threading.enumerate()) <= before


def test_a_mistake_of_the_stand_in_fails_the_test(hub_env: HubEnv) -> None:
    with pytest.raises(RuntimeError, match="stand-in hub is broken"), StandInHub() as hub:  # noqa: PT012
        hub.add("user/tiny", FILES)
        httpx2.post(f"{hub.endpoint}/api/repos/create", headers={"Authorization": "Bearer hf_writer"}, json=[])


# -- the fixture -------------------------------------------------------------------------------------------------------


def test_this_process_is_turned_to_the_hub(hub_env: HubEnv) -> None:
    from huggingface_hub.utils import _cache_manager, _git_credential
    from transformers import dynamic_module_utils

    assert constants.ENDPOINT == _git_credential.ENDPOINT == HfApi().endpoint == hub_env.endpoint
    assert constants.HUGGINGFACE_CO_URL_TEMPLATE.startswith(hub_env.endpoint)
    assert str(hub_env.cache_dir) == _cache_manager.HF_HUB_CACHE
    assert Path(constants.HF_TOKEN_PATH).is_relative_to(hub_env.home)
    assert Path(dynamic_module_utils.HF_MODULES_CACHE).is_relative_to(hub_env.home)
    assert not constants.is_offline_mode()
    assert constants.HF_HUB_DISABLE_XET


def test_and_back_again(request: pytest.FixtureRequest) -> None:
    def settled() -> dict[str, Any]:
        from huggingface_hub.hf_api import api
        from huggingface_hub.utils import _git_credential

        known = {name: value for name, value in vars(constants).items() if name.isupper()}
        return known | {"environment": dict(os.environ), "api": api.endpoint, "git": _git_credential.ENDPOINT}

    environment = settled()
    patch = pytest.MonkeyPatch()
    with patch.context() as monkeypatch:
        from tests.stand_in_hub.fixtures import turn_clients_to

        turn_clients_to("http://127.0.0.1:9", Path("nowhere"), monkeypatch)
        assert settled() != environment
    after = settled()
    after["environment"].pop("PYTEST_CURRENT_TEST", None)
    environment["environment"].pop("PYTEST_CURRENT_TEST", None)
    assert after == environment


def test_processes_started_now_are_turned_to_the_hub(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.add("user/tiny", FILES)
    code = "import huggingface_hub; print(huggingface_hub.hf_hub_download('user/tiny', 'config.json'))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(ran.stdout.strip()).is_relative_to(hub_env.cache_dir)


def eventually(condition: Callable[[], bool], patience: float = 10) -> None:
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.005)
