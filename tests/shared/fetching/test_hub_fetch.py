"""The Hub client's cache, shared with others: other suites, other programs, other users of the same files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.checkpoints import kinds
from shared.errors import SuiteError, WeightsCorrupt, WeightsMissing
from shared.fetching import hub_errors, hub_fetch, transfer
from shared.fetching.hub_fetch import MARGIN, Meter, Repository
from shared.fetching.hub_files import HubFiles
from shared.fetching.hub_link import HubLink
from shared.settings import Settings
from tests.shared.fetching.test_hub_files import FILES, REPO, WEIGHTS, brought, checkpoint, folder
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACKOFF", 0.01)
    monkeypatch.setattr(hub_errors, "BACKOFF", 0.01)


@pytest.fixture
def suite(hub_env: HubEnv, tmp_path: Path) -> Callable[[str], HubFiles]:
    """`suite(name)`: the files of a suite with a SUITE_CACHE_DIR of its own; HF_HOME is the same for all."""

    def make(name: str = "one") -> HubFiles:
        return HubFiles(Settings(cache_dir=tmp_path / name), HubLink("auto"), lambda checkpoint: None)

    return make


@pytest.fixture
def files(suite: Callable[[str], HubFiles]) -> HubFiles:
    return suite("one")


def blobs(env: HubEnv) -> list[str]:
    return sorted(path.name for path in (env.cache_dir / "models--user--tiny" / "blobs").iterdir())


# -- which commit ----------------------------------------------------------------------------------


def test_what_nobody_pinned_is_loaded_at_the_commit_it_was_fetched_at(hub: StandInHub, files: HubFiles) -> None:
    commit = hub.add(REPO, FILES)
    resolved, _ = brought(files, checkpoint())
    assert resolved.revision == commit
    assert folder(files, resolved) == folder(files, checkpoint())
    assert files.is_on_disk(resolved)
    hub.add(REPO, FILES | {"config.json": b"{}"})
    assert brought(files, checkpoint())[0].revision == commit, "it stays with what is here"
    with pytest.raises(WeightsMissing):
        folder(files, checkpoint(revision="0" * 40))


def test_two_commits_lie_side_by_side_and_share_what_is_equal(hub: StandInHub, files: HubFiles) -> None:
    first = hub.add(REPO, FILES)
    second = hub.add(REPO, FILES | {"config.json": b'{"model_type": "gpt2", "n_head": 2}'})
    brought(files, checkpoint(revision=first))
    brought(files, checkpoint(revision=second))
    assert hub.sent("/storage/") == len(WEIGHTS)
    one, other = (folder(files, checkpoint(revision=commit)) for commit in (first, second))
    assert (one / "config.json").read_bytes() != (other / "config.json").read_bytes()


# -- what others left ------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["tokenizer.json", "config.json", "generation_config.json", "model.safetensors"])
def test_a_file_that_was_altered_comes_anew(hub: StandInHub, files: HubFiles, lost: str) -> None:
    """Thrown away, it must not be missed in silence: the rest would look like a whole checkpoint."""
    content = FILES | {"generation_config.json": b'{"eos_token_id": 3}'}
    wanted = checkpoint(revision=hub.add(REPO, content))
    brought(files, wanted)
    (folder(files, wanted) / lost).resolve().write_bytes(content[lost][:-1] + b"!")
    with pytest.raises(WeightsCorrupt, match="altered or cut short"):
        folder(files, wanted)
    assert not files.is_on_disk(wanted)
    brought(files, wanted)
    assert (folder(files, wanted) / lost).read_bytes() == content[lost]


def test_a_part_that_another_program_needed_is_not_taken_for_the_whole(
    hub: StandInHub, files: HubFiles, hub_env: HubEnv
) -> None:
    from huggingface_hub import hf_hub_download

    commit = hub.add(REPO, FILES)
    for name in ("config.json", "model.safetensors"):
        hf_hub_download(REPO, name, revision=commit)
    sent = hub.sent("/storage/")
    brought(files, checkpoint(revision=commit))
    assert (folder(files, checkpoint(revision=commit)) / "tokenizer.json").read_bytes() == FILES["tokenizer.json"]
    assert hub.sent("/storage/") == sent, "what was there is used"


def test_the_hubs_own_client_finds_what_we_fetched(hub: StandInHub, files: HubFiles, hub_env: HubEnv) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    commit = hub.add(REPO, FILES)
    brought(files, checkpoint())
    asked = len(hub.requests)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        assert Path(hf_hub_download(REPO, name, revision=commit)).read_bytes() == FILES[name]
    assert len(hub.requests) == asked
    report = scan_cache_dir(hub_env.cache_dir)
    assert not report.warnings
    assert [repo.repo_id for repo in report.repos] == [REPO]


def test_a_damaged_blob_of_another_program_is_replaced(hub: StandInHub, files: HubFiles, hub_env: HubEnv) -> None:
    from huggingface_hub import hf_hub_download

    commit = hub.add(REPO, FILES)
    Path(hf_hub_download(REPO, "model.safetensors", revision=commit)).resolve().write_bytes(b"x" * len(WEIGHTS))
    brought(files, checkpoint(revision=commit))
    assert (folder(files, checkpoint(revision=commit)) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_part_of_wrong_bytes_is_found_out_and_begun_anew(hub: StandInHub, files: HubFiles, hub_env: HubEnv) -> None:
    hub.add(REPO, FILES)
    (file,) = [f for name, f in hub.repository(REPO).find("main").files.items() if name == "model.safetensors"]
    part = hub_env.cache_dir / "models--user--tiny" / "blobs" / f"{file.sha256}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    with pytest.raises(WeightsCorrupt, match="another content"):
        brought(files, checkpoint())
    assert not part.exists()
    brought(files, checkpoint())
    assert (folder(files, checkpoint()) / "model.safetensors").read_bytes() == WEIGHTS


def test_an_empty_file(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES | {"merges.txt": b""})
    brought(files, checkpoint())
    assert (folder(files, checkpoint()) / "merges.txt").read_bytes() == b""


def test_without_links_files_are_copied(hub: StandInHub, files: HubFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(self: Path, target: str) -> None:
        raise OSError("a privilege is not held")

    hub.add(REPO, FILES)
    monkeypatch.setattr(Path, "symlink_to", no_links)
    brought(files, checkpoint())
    found = folder(files, checkpoint()) / "model.safetensors"
    assert not found.is_symlink()
    assert found.read_bytes() == WEIGHTS


def test_nothing_is_left_beside_what_was_fetched(hub: StandInHub, files: HubFiles, hub_env: HubEnv) -> None:
    commit = hub.add(REPO, FILES)
    brought(files, checkpoint())
    held = hub.repository(REPO).find(commit).files
    assert blobs(hub_env) == sorted(held[name].etag for name in ("config.json", "tokenizer.json", "model.safetensors"))


def test_a_refusal_leaves_no_part(hub: StandInHub, files: HubFiles, hub_env: HubEnv) -> None:
    hub.add(REPO, FILES, gated=True)
    with pytest.raises(SuiteError, match="is gated"):
        brought(files, checkpoint())
    assert blobs(hub_env) == []


# -- tokens ----------------------------------------------------------------------------------------


def test_the_token_goes_to_the_hub_and_not_to_its_storage(
    hub: StandInHub, files: HubFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, FILES, private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    hub.faults.cut("/storage/", at=0.5)  # also when it goes on
    brought(files, checkpoint())
    by_place: dict[bool, set[str | None]] = {True: set(), False: set()}
    for request in hub.requests:
        by_place["/storage/" in request.path].add(request.headers.get("authorization"))
    assert by_place == {True: {None}, False: {"Bearer hf_reader"}}


# -- several at once -------------------------------------------------------------------------------


def test_two_suites_in_one_process_share_one_download(hub: StandInHub, suite: Callable[[str], HubFiles]) -> None:
    hub.add(REPO, FILES)
    hub.faults.slow("/storage/", bytes_per_second=1_000_000)
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda name=name: results.append(brought(suite(name), checkpoint())))
        for name in ("one", "two", "three")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 3
    assert hub.sent("/storage/") == len(WEIGHTS)
    for name in ("one", "two", "three"):
        assert (folder(suite(name), checkpoint()) / "model.safetensors").read_bytes() == WEIGHTS


FETCH = """
import sys
from pathlib import Path
from shared.fetching.hub_files import HubFiles
from shared.fetching.hub_link import HubLink
from shared.settings import Settings
from tests.shared.fetching.test_hub_files import brought, checkpoint
resolved, progress = brought(HubFiles(Settings(cache_dir=Path(sys.argv[1])), HubLink("auto"), print), checkpoint())
print(resolved.revision, any("another process" in event.what for event in progress))
"""


def test_two_processes_on_one_cache(hub: StandInHub, hub_env: HubEnv, tmp_path: Path) -> None:
    commit = hub.add(REPO, FILES)
    go_on = hub.faults.gate("/storage/")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH, str(tmp_path / "cache")],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    over = threading.Event()
    while not any("/storage/" in request.path for request in hub.requests):
        over.wait(0.05)
    over.wait(0.5)
    go_on.set()
    said = [process.communicate(timeout=60)[0].split()[-2:] for process in started]
    assert [words[0] for words in said] == [commit, commit]
    assert hub.sent("/storage/") == len(WEIGHTS)


# -- leaving ---------------------------------------------------------------------------------------


def fetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]


@pytest.mark.parametrize("where", ["/api/models/", "/resolve/", "/storage/"])
def test_who_leaves_while_the_hub_has_us_wait_ends_the_wait(hub: StandInHub, files: HubFiles, where: str) -> None:
    hub.add(REPO, FILES)
    hub.faults.rate_limit(where, times=9, retry_after=30)
    asking = files.ensure(checkpoint())
    while not any(where in request.path for request in hub.requests):
        next(asking)
    asking.close()
    for thread in fetching():
        thread.join(5)
    assert not fetching()
    hub.faults.clear()
    assert brought(files, checkpoint())[0].revision


def test_who_leaves_while_another_process_fetches_ends_the_wait(
    hub: StandInHub, files: HubFiles, tmp_path: Path
) -> None:
    from filelock import FileLock

    hub.add(REPO, FILES)
    (tmp_path / "one" / "hub").mkdir(parents=True)
    with FileLock(tmp_path / "one" / "hub" / "user--tiny@unpinned.lock"):
        asking = files.ensure(checkpoint())
        while "another process" not in next(asking).what:
            pass
        asking.close()
        for thread in fetching():
            thread.join(5)
        assert not fetching()
    assert not hub.requests
    assert brought(files, checkpoint())[0].revision


# -- a client that others close --------------------------------------------------------------------


def test_a_session_that_others_close_is_replaced(hub: StandInHub, files: HubFiles) -> None:
    """The Hub's client closes its one session for everybody when a connection of anybody's fails."""
    from huggingface_hub import close_session

    hub.add(REPO, FILES)
    gate = hub.faults.gate("/storage/")
    asking = files.ensure(checkpoint())
    for progress in asking:
        if progress.done > 100_000:
            break
    close_session()
    gate.set()
    for _ in asking:
        pass
    assert (folder(files, checkpoint()) / "model.safetensors").read_bytes() == WEIGHTS


# -- room ------------------------------------------------------------------------------------------


def test_a_pickle_needs_room_twice_where_both_folders_are_on_one_disk(
    hub: StandInHub, hub_env: HubEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_pickle = {name: data for name, data in FILES.items() if name != "model.safetensors"}
    hub.add(REPO, only_pickle)
    repository = Repository(REPO, "", HubLink("auto").api, lambda *_: None, kinds.get("causal-lm"))
    size = sum(file.size for file in repository.wanted)

    def usage(free: int) -> Callable[[Any], Any]:
        return lambda path: type("Usage", (), {"free": free})

    monkeypatch.setattr(hub_fetch.shutil, "disk_usage", usage(MARGIN + 2 * size))
    repository.make_sure_of_room(tmp_path)
    monkeypatch.setattr(hub_fetch.shutil, "disk_usage", usage(MARGIN + 2 * size - 1))
    with pytest.raises(SuiteError, match=r"the disk is too full: .* in SUITE_CACHE_DIR"):
        repository.make_sure_of_room(tmp_path)


def test_a_conversion_that_was_altered_is_made_anew(hub: StandInHub, files: HubFiles, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(50)}, tmp_path / "x.bin")
    made = {"pytorch_model.bin": (tmp_path / "x.bin").read_bytes(), "modeling_x.py": b"1/0"}
    hub.add(REPO, made | {name: FILES[name] for name in ("config.json", "tokenizer.json", "tf_model.h5")})
    resolved, _ = brought(files, checkpoint())
    found = folder(files, resolved)
    assert {path.name for path in found.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "converted.json",
    }
    whole = (found / "model.safetensors").read_bytes()
    (found / "model.safetensors").write_bytes(whole[:-1] + b"!")
    with pytest.raises(WeightsCorrupt, match="altered"):
        folder(files, resolved)
    asked = len(hub.requests)
    brought(files, resolved)
    assert (folder(files, resolved) / "model.safetensors").read_bytes() == whole
    assert len(hub.requests) == asked, "the pickle is still here"


# -- the meter -------------------------------------------------------------------------------------


def test_the_meter_counts_what_arrives_and_not_what_was_here() -> None:
    now = [0.0]
    told: list[tuple[str, int, int]] = []
    meter = Meter(lambda *what: told.append(what), "fetching", 30_000_000, lambda: now[0])
    meter.begin(10_000_000)
    meter.file_done(10_000_000)  # was here
    now[0] = 2.0
    meter.begin(0)
    meter(4_000_000)
    assert told[-1] == ("fetching at 2.0 MB/s", 14_000_000, 30_000_000)
    meter.file_done(20_000_000)
    assert told[-1] == ("fetching at 10.0 MB/s", 30_000_000, 30_000_000)
