"""Repositories on disk: only what is needed, checked, gone on with, and never half of one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.checkpoints import pytorch_bin
from shared.checkpoints.catalog import Checkpoint, HubSource
from shared.errors import MemoryRefused, SuiteError, WeightsCorrupt
from shared.events import Loading, result_of
from shared.fetching import hub_fetch, transfer
from shared.fetching.hub_files import HubFiles
from shared.fetching.hub_link import HubLink
from shared.settings import Settings
from tests.stand_in_hub import StandInHub

REPO = "user/tiny"
WEIGHTS = bytes(range(256)) * 1200  # 307 kB
FILES = {
    "config.json": b'{"model_type": "gpt2"}',
    "tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle " * 40_000,
    "tf_model.h5": b"h5" * 40_000,
    "onnx/model.onnx": b"onnx" * 40_000,
    "README.md": b"# A card",
}


def checkpoint(repo: str = REPO, revision: str = "") -> Checkpoint:
    return Checkpoint(
        id=repo,
        kind="causal-lm",
        engine="decoders.reference",
        profile="hub",
        tasks=("text-generation",),
        languages=("en",),
        licence="MIT",
        authors="us",
        parameters=1000,
        context_window=64,
        revision=revision,
        limits="Tiny.",
        source=HubSource(repo=repo),
    )


@pytest.fixture
def files(hub_env: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubFiles:
    monkeypatch.setattr(transfer, "BACKOFF", 0.01)
    return HubFiles(Settings(cache_dir=tmp_path), HubLink("auto"), lambda checkpoint: None)


def brought(files: HubFiles, wanted: Checkpoint) -> tuple[Checkpoint, list[Loading]]:
    progress: list[Loading] = []
    return result_of(files.ensure(wanted), progress.append), progress


def folder(files: HubFiles, wanted: Checkpoint) -> Path:
    return files.verified_folder(wanted, lambda *_: None)


def test_only_the_needed_files_come_and_the_commit_is_recorded(hub: StandInHub, files: HubFiles) -> None:
    commit = hub.add(REPO, FILES)
    wanted = checkpoint()
    assert not files.is_on_disk(wanted)
    resolved, _ = brought(files, wanted)
    assert resolved.revision == commit
    assert files.is_on_disk(wanted)
    found = folder(files, wanted)
    assert {path.name for path in found.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (found / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent("/storage/") == len(WEIGHTS)
    asked = len(hub.requests)
    assert brought(files, wanted)[0].revision == commit
    assert len(hub.requests) == asked, "what is here is not asked for again"


def test_a_transfer_that_breaks_goes_on_where_it_was(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES)
    hub.faults.cut("/storage/", at=0.5, times=1)
    brought(files, checkpoint())
    ranges = [request.range for request in hub.requests if "/storage/" in request.path]
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=")
    assert hub.sent("/storage/") < 1.1 * len(WEIGHTS)


def test_one_that_keeps_breaking_is_kept_for_the_next_attempt(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES)
    hub.faults.gate("/storage/", at=0.5)
    fetching = files.ensure(checkpoint())
    for progress in fetching:
        if progress.done > 100_000:
            break
    hub.faults.unreachable()
    with pytest.raises(SuiteError, match="it goes on from there"):
        result_of(fetching)
    assert not files.is_on_disk(checkpoint())
    with pytest.raises(SuiteError, match=r"cannot be reached .*What was fetched so far is kept, and the next attempt"):
        brought(files, checkpoint())
    sent = hub.sent("/storage/")
    hub.faults.clear()
    brought(files, checkpoint())
    assert hub.sent("/storage/") - sent < 0.6 * len(WEIGHTS)
    assert (folder(files, checkpoint()) / "model.safetensors").read_bytes() == WEIGHTS


def test_other_content_than_stated_is_thrown_away(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES)
    hub.faults.corrupt("/storage/")
    with pytest.raises(WeightsCorrupt, match=r"model\.safetensors of user/tiny arrived with another content"):
        brought(files, checkpoint())
    assert not files.is_on_disk(checkpoint())
    hub.faults.clear()
    brought(files, checkpoint())
    assert (folder(files, checkpoint()) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("small", ["config.json", "tokenizer.json"])
def test_small_files_are_checked_too(hub: StandInHub, files: HubFiles, small: str) -> None:
    hub.add(REPO, FILES)
    hub.faults.corrupt(small)
    with pytest.raises(WeightsCorrupt, match="another content"):
        brought(files, checkpoint())
    hub.faults.clear()
    brought(files, checkpoint())


@pytest.mark.parametrize("fault", ["rate_limit", "server_error"])
def test_a_busy_hub_is_asked_again(hub: StandInHub, files: HubFiles, fault: str) -> None:
    hub.add(REPO, FILES)
    getattr(hub.faults, fault)("/api/models/", times=2)
    assert brought(files, checkpoint())[0].revision


def test_ten_who_ask_at_once_cause_one_download(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES)
    gate = hub.faults.gate("/storage/")
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(brought(files, checkpoint()))) for _ in range(10)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(30)
    assert len({resolved.revision for resolved, _ in results}) == 1
    assert len(results) == 10
    assert hub.sent("/storage/") == len(WEIGHTS)


def test_when_the_last_one_leaves_the_download_ends_and_its_part_is_kept(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES)
    hub.faults.slow("/storage/", bytes_per_second=100_000)
    fetching = files.ensure(checkpoint())
    for progress in fetching:
        if progress.done > 50_000 and progress.total >= len(WEIGHTS):
            break
    fetching.close()
    assert wait_until(lambda: not any(thread.name.startswith("fetch-") for thread in threading.enumerate()))
    assert not files.is_on_disk(checkpoint())
    sent = hub.sent("/storage/")
    assert sent < len(WEIGHTS)
    hub.faults.clear()
    brought(files, checkpoint())
    assert any(request.range for request in hub.requests if "/storage/" in request.path)


def test_progress_tells_bytes_and_rate(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES)
    hub.faults.slow("/storage/", bytes_per_second=200_000)
    _, progress = brought(files, checkpoint())
    assert any("MB/s" in event.what for event in progress)
    total = sum(len(FILES[name]) for name in ("config.json", "tokenizer.json", "model.safetensors"))
    fetching = [event for event in progress if event.what.startswith("fetching")]
    assert {event.total for event in fetching} == {total}
    assert [event.done for event in fetching] == sorted(event.done for event in fetching)


def test_what_changed_on_disk_is_not_loaded_and_is_fetched_anew(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES)
    brought(files, checkpoint())
    weights = folder(files, checkpoint()) / "model.safetensors"
    weights.resolve().write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(WeightsCorrupt, match="altered or cut short"):
        folder(files, checkpoint())
    brought(files, checkpoint())
    assert (folder(files, checkpoint()) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_that_went_missing_is_fetched_anew(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES)
    brought(files, checkpoint())
    (folder(files, checkpoint()) / "model.safetensors").resolve().unlink()
    assert not files.is_on_disk(checkpoint())
    brought(files, checkpoint())
    assert files.is_on_disk(checkpoint())


def test_before_anything_came_nothing_is_said_to_be_kept(hub: StandInHub, files: HubFiles) -> None:
    hub.faults.unreachable()
    with pytest.raises(SuiteError, match="the Hub cannot be reached") as refused:
        brought(files, checkpoint())
    assert "kept" not in refused.value.message


def test_a_pin_that_the_hub_lacks_says_so(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES)
    with pytest.raises(SuiteError, match="no such revision"):
        brought(files, checkpoint(revision="0" * 40))


def test_memory_and_disk_are_checked_before_the_first_byte(
    hub: StandInHub, files: HubFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, FILES)

    def refuse(_: Checkpoint) -> None:
        raise MemoryRefused("needs more than the budget")

    strict = HubFiles(Settings(cache_dir=tmp_path / "strict"), HubLink("auto"), refuse)
    with pytest.raises(MemoryRefused):
        brought(strict, checkpoint())
    assert not hub.requests
    monkeypatch.setattr(hub_fetch, "MARGIN", 10**18)
    with pytest.raises(SuiteError, match=r"the disk is too full: .* Nothing was fetched"):
        brought(files, checkpoint())
    assert hub.sent("/storage/") == 0


def test_what_memory_cannot_turn_into_safetensors_is_not_fetched(
    hub: StandInHub, files: HubFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytorch_bin, "free_memory", lambda: 150 * 10**6)
    hub.add(REPO, {name: data for name, data in FILES.items() if name != "model.safetensors"})
    with pytest.raises(MemoryRefused) as refused:
        brought(files, checkpoint())
    for words in (
        "user/tiny is published as a pickle",
        "may take 200 MB of memory, of which 150 MB are free",
        "choose a sm",
    ):
        assert words in refused.value.message
    assert refused.value.message.endswith("Nothing was fetched")
    assert not [request for request in hub.requests if "/resolve/" in request.path or "/storage/" in request.path]
    hub.add(REPO, FILES)
    assert brought(files, checkpoint())[0].revision, "safetensors need not be turned into anything"


# -- what others put into the Hub client's cache -------------------------------------------------------


def others(name: str, tmp_path: Path) -> HubFiles:
    """Of a suite that has fetched nothing, with HF_HUB_OFFLINE."""
    link = HubLink("auto")
    link.state, link.reason = "offline", "HF_HUB_OFFLINE is set"
    return HubFiles(Settings(cache_dir=tmp_path / name), link, lambda checkpoint: None)


def test_a_snapshot_put_there_by_others_is_used_without_the_hub(
    hub: StandInHub, files: HubFiles, tmp_path: Path
) -> None:
    from huggingface_hub import snapshot_download

    commit = hub.add(REPO, FILES)
    wanted = checkpoint(revision=commit)
    assert not files.is_on_disk(wanted)
    snapshot_download(REPO, revision=commit)  # as a Space's build does, with a commit: no branch is written down
    asked = len(hub.requests)
    assert files.is_on_disk(wanted)
    assert not files.is_on_disk(checkpoint())
    assert brought(files, wanted)[0].revision == commit
    offline = others("offline", tmp_path)
    assert offline.is_on_disk(wanted)
    assert brought(offline, wanted)[0].revision == commit
    assert {path.name for path in folder(offline, wanted).iterdir()} >= {"config.json", "model.safetensors"}
    with pytest.raises(SuiteError, match="HF_HUB_OFFLINE is set"):
        brought(offline, checkpoint("user/elsewhere"))
    assert len(hub.requests) == asked


def test_what_nobody_pinned_is_used_at_the_commit_of_main(hub: StandInHub, files: HubFiles, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    hub.add(REPO, FILES)
    commit = hub.add(REPO, FILES | {"config.json": b'{"model_type": "gpt2", "n_head": 2}'})
    snapshot_download(REPO)
    asked = len(hub.requests)
    for each in (files, others("offline", tmp_path)):
        assert each.is_on_disk(checkpoint())
        assert brought(each, checkpoint())[0].revision == commit
    assert len(hub.requests) == asked


@pytest.mark.parametrize("damage", ["", "../..", "0" * 40])
def test_a_branch_that_names_no_snapshot(hub: StandInHub, files: HubFiles, hub_env: Any, damage: str) -> None:
    from huggingface_hub import snapshot_download

    hub.add(REPO, FILES)
    snapshot_download(REPO)
    (hub_env.cache_dir / "models--user--tiny" / "refs" / "main").write_text(damage)
    assert not files.is_on_disk(checkpoint())


SHARDS = {f"model-0000{n}-of-00003.safetensors": WEIGHTS[n:] for n in (1, 2, 3)}
INDEX = {"model.safetensors.index.json": b"{}"}
BYTES = {"vocab.json": b"{}", "merges.txt": b"#"}
PIECES = {"vocab.json": b"{}", "source.spm": b"s", "target.spm": b"t"}
NO_WEIGHTS = {name: data for name, data in FILES.items() if not name.startswith(("model", "pytorch"))}
NO_TOKENIZER = {name: data for name, data in FILES.items() if name != "tokenizer.json"}


@pytest.mark.parametrize(
    ("content", "lost"),
    [
        (FILES, ["model.safetensors", "pytorch_model.bin"]),
        (FILES, ["config.json"]),
        (FILES, ["tokenizer.json"]),
        (NO_WEIGHTS | SHARDS | INDEX, ["model-00002-of-00003.safetensors"]),
        (NO_WEIGHTS | SHARDS | INDEX, ["model.safetensors.index.json"]),
        (NO_TOKENIZER | BYTES, ["merges.txt"]),
        (NO_TOKENIZER | BYTES, ["vocab.json"]),
        (NO_TOKENIZER | PIECES, ["vocab.json"]),
        (NO_TOKENIZER | PIECES, ["target.spm"]),
    ],
    ids=lambda value: "" if isinstance(value, dict) else "-".join(value),
)
def test_a_snapshot_that_lacks_something_does_not_count(
    hub: StandInHub, tmp_path: Path, hub_env: Any, content: dict[str, bytes], lost: list[str]
) -> None:
    from huggingface_hub import snapshot_download

    wanted = checkpoint(revision=hub.add(REPO, content))
    snapshot = Path(snapshot_download(REPO, revision=wanted.revision))
    offline = others("offline", tmp_path)
    assert offline.is_on_disk(wanted)
    for name in lost:
        (snapshot / name).unlink()
    assert not offline.is_on_disk(wanted)
    with pytest.raises(SuiteError, match="HF_HUB_OFFLINE is set"):
        brought(offline, wanted)


def test_a_link_to_a_file_that_is_gone_does_not_count(hub: StandInHub, files: HubFiles) -> None:
    from huggingface_hub import snapshot_download

    wanted = checkpoint(revision=hub.add(REPO, FILES))
    (Path(snapshot_download(REPO)) / "tokenizer.json").resolve().unlink()
    assert not files.is_on_disk(wanted)


def test_to_see_whether_it_is_here_no_weights_are_read(
    hub: StandInHub, files: HubFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    wanted = checkpoint(revision=hub.add(REPO, FILES))
    snapshot_download(REPO, revision=wanted.revision)
    read: list[str] = []
    path_open = Path.open

    def noted(self: Path, *arguments: Any, **options: Any) -> Any:
        read.append(self.name)
        return path_open(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", noted)
    assert files.is_on_disk(wanted)
    assert not [name for name in read if not name.endswith(("@unpinned.json", f"@{wanted.revision}.json", "main"))]
    brought(files, wanted)
    assert "model.safetensors" in read, "so this would have seen it"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_others_fetched_is_checked_before_it_is_used(
    hub: StandInHub, files: HubFiles, tmp_path: Path, name: str
) -> None:
    from huggingface_hub import snapshot_download

    content = {each: data for each, data in FILES.items() if each != "pytorch_model.bin"}
    wanted = checkpoint(revision=hub.add(REPO, content))
    held = Path(snapshot_download(REPO, revision=wanted.revision)) / name
    held.resolve().write_bytes(FILES[name][:-1] + b"!")
    with pytest.raises(WeightsCorrupt, match=f"{name} of user/tiny was altered or cut short"):
        brought(others("offline", tmp_path), wanted)
    assert not files.is_on_disk(wanted)
    brought(files, wanted)
    assert held.read_bytes() == FILES[name]


def test_a_note_that_is_damaged_counts_for_nothing(hub: StandInHub, files: HubFiles, tmp_path: Path) -> None:
    hub.add(REPO, FILES)
    brought(files, checkpoint())
    (note,) = (tmp_path / "hub").glob("*.json")
    for damage in ("", "[]", json.dumps({"files": {"config.json": 3}})):
        note.write_text(damage)
        assert not files.is_on_disk(checkpoint())
    brought(files, checkpoint())
    assert files.is_on_disk(checkpoint())


def test_a_cancelled_waiter_leaves_the_others_waiting(hub: StandInHub, files: HubFiles) -> None:
    hub.add(REPO, FILES)
    gate = hub.faults.gate("/storage/")
    first, second = files.ensure(checkpoint()), files.ensure(checkpoint())
    next(first)
    next(second)
    first.close()
    gate.set()
    assert result_of(second).revision


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Looks again and again, since a thread takes its time to end."""
    over = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if true():
            return True
        over.wait(0.05)
    return bool(true())
