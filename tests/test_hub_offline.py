"""What lies whole in the Hub client's cache is used: with HF_HUB_OFFLINE, where no Hub answers, and where one does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from shared.settings import Profile, Settings
from shared.suite import Suite, serve
from tests.course_hub import pin_to, push
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv

BERT = "google-bert/bert-base-uncased"
TEXT = "Paris is the capital of [MASK]."


@dataclass
class Cached:
    """A machine on which somebody else's program has fetched BERT."""

    hub: StandInHub
    commit: str
    folder: Path
    """The snapshot in the Hub client's cache."""
    serve: Callable[..., Suite]

    def fill(self, suite: Suite, model: str = "") -> tuple[str, dict[str, Any]]:
        """The likeliest word, and RunInfo."""
        masks, run = Client(suite.url, verbose=False).predict(text=TEXT, top_k=1, model=model, api_name="/fill_mask")
        return str(masks), run


@pytest.fixture
def cached(hub: StandInHub, hub_env: HubEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cached]:
    from huggingface_hub import snapshot_download

    commit = push(hub, BERT, tmp_path / "made")
    folder = Path(snapshot_download(BERT))
    running: list[Suite] = []

    def serve_it(profile: Profile = "auto", revision: str = commit) -> Suite:
        """A suite whose catalog has the tiny BERT; returns when it knows whether a Hub answers."""
        given = {"port": 0, "spaces": ("reading",), "warm_examples": False, "answer_cache": 0}
        suite = serve(Settings(profile=profile, cache_dir=tmp_path / "cache", **given), block=False)
        running.append(suite)
        pin_to(suite, {BERT: revision})
        until = time.monotonic() + 30
        while suite.runtime.hub.state == "asking" and time.monotonic() < until:
            time.sleep(0.01)
        return suite

    yield Cached(hub, commit, folder, serve_it)
    for suite in running:
        suite.close()


def go_offline(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> str:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return "offline"


def fall_silent(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> str:
    cached.hub.faults.unreachable()
    return "silent"


def stay(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> str:
    return "answers"


Happens = Callable[[Cached, pytest.MonkeyPatch], str]


@pytest.mark.parametrize("profile", ["auto", "hub"])
@pytest.mark.parametrize("happens", [go_offline, fall_silent, stay])
def test_a_whole_snapshot_answers(
    cached: Cached, monkeypatch: pytest.MonkeyPatch, profile: Profile, happens: Happens
) -> None:
    state = happens(cached, monkeypatch)
    before = len(cached.hub.requests)
    suite = cached.serve(profile)
    assert suite.runtime.hub.state == state
    report = Client(suite.url, verbose=False).predict(api_name="/models")[0]
    (entry,) = [row for row in report["catalog"] if row["id"] == BERT]
    assert (entry["fetched"], entry["why_not"]) == (True, "")
    unnamed, run = cached.fill(suite)
    assert (run["checkpoint"], run["revision"]) == (BERT, cached.commit)
    assert cached.fill(suite, BERT)[0] == unnamed
    assert not [request for request in cached.hub.requests[before:] if BERT in request.path]


@pytest.mark.parametrize("profile", ["auto", "hub"])
@pytest.mark.parametrize("happens", [go_offline, stay])
def test_what_is_not_pinned_is_used_at_the_commit_of_main(
    cached: Cached, monkeypatch: pytest.MonkeyPatch, profile: Profile, happens: Happens
) -> None:
    happens(cached, monkeypatch)
    assert cached.fill(cached.serve(profile, revision=""))[1]["revision"] == cached.commit


@pytest.mark.parametrize("profile", ["auto", "hub"])
@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "tokenizer.json and vocab.txt"])
def test_a_part_of_a_snapshot_does_not(
    cached: Cached, monkeypatch: pytest.MonkeyPatch, profile: Profile, lost: str
) -> None:
    for name in lost.split(" and "):
        (cached.folder / name).unlink()
    go_offline(cached, monkeypatch)
    suite = cached.serve(profile)
    for model in ("", BERT):
        with pytest.raises(AppError, match=r"cannot be used.*: it is on the Hub, and HF_HUB_OFFLINE is set"):
            cached.fill(suite, model)


def test_another_commit_does_not(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline(cached, monkeypatch)
    suite = cached.serve(revision="0" * 40)
    with pytest.raises(AppError, match="HF_HUB_OFFLINE is set"):
        cached.fill(suite)
