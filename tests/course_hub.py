"""A stand-in Hub with a tiny checkpoint of every architecture under the course's names, and a suite turned to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client

from shared.settings import Settings
from shared.suite import Suite, serve
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import turn_clients_to
from tests.tiny_checkpoints import decoders, encoders, seq2seq
from tests.tiny_checkpoints.weights import as_pytorch_bin, sharded

MAKERS: dict[str, Callable[[Path], Any]] = {
    "openai-community/gpt2": decoders.gpt2,
    "microsoft/DialoGPT-medium": decoders.dialogpt,
    "HuggingFaceTB/SmolLM2-135M-Instruct": decoders.llama_chat,
    "FacebookAI/roberta-large-mnli": encoders.roberta_mnli,
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": encoders.distilbert_sst2,
    "google-t5/t5-small": seq2seq.t5,
    "google/flan-t5-small": seq2seq.flan_t5,
    "Helsinki-NLP/opus-mt-en-es": seq2seq.marian,
    "alirezamsh/small100": seq2seq.small100,
    "google-bert/bert-base-uncased": encoders.bert_mlm,
    "distilbert/distilbert-base-cased-distilled-squad": encoders.distilbert_qa,
    "facebook/wav2vec2-base": encoders.wav2vec2_base,
    "user/wav2vec2-genres": encoders.wav2vec2_genres,
    "user/bart-order-mnli": encoders.bart_order_mnli,
}

AS_PICKLE = ("Helsinki-NLP/opus-mt-en-es", "alirezamsh/small100", "microsoft/DialoGPT-medium")
"""Repositories that hold a PyTorch `.bin` and no safetensors, as the real ones do or did."""
IN_SHARDS = ("google/flan-t5-small",)


@dataclass
class Course:
    hub: StandInHub
    suite: Suite
    client: Client
    folders: dict[str, Path]
    """The checkpoints as they were made, for a reference."""
    commits: dict[str, str]
    """Of each repository."""

    def ask(self, endpoint: str, **values: Any) -> tuple[Any, ...]:
        """The endpoint's outputs, RunInfo last."""
        return self.client.predict(api_name=f"/{endpoint}", **values)

    def serve_beside(self, *spaces: str) -> Suite:
        """Another suite over the same Hub and cache, with these Spaces only. The Hub has answered it."""
        settings = self.suite.settings.model_copy(update={"spaces": spaces})
        beside = serve(settings, block=False)
        pin_to(beside, self.commits)
        until = time.monotonic() + 30
        while beside.runtime.hub.state == "asking" and time.monotonic() < until:
            time.sleep(0.01)
        return beside


def push(hub: StandInHub, repo: str, folder: Path) -> str:
    """Makes a tiny checkpoint and puts it on the Hub in the form its real one has. Returns the commit."""
    MAKERS[repo](folder)
    published = folder.with_name(folder.name + "-published")
    published.mkdir()
    for file in folder.iterdir():
        (published / file.name).write_bytes(file.read_bytes())
    if repo in AS_PICKLE:
        as_pytorch_bin(published)
    if repo in IN_SHARDS:
        sharded(published)
    return hub.add(repo, published, card=CARDS.get(repo))


CARDS = {
    "user/bart-order-mnli": {"license": "mit", "language": "en", "pipeline_tag": "zero-shot-classification"},
    "user/wav2vec2-genres": {"license": "apache-2.0", "pipeline_tag": "audio-classification"},
}


@contextmanager
def course(tmp_path: Path, **settings: Any) -> Iterator[Course]:
    """Everything together. Embedded weights are those of the machine; what the Hub brings goes to `tmp_path`."""
    real = Settings()
    for name in ("weights", "converted"):
        (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / name).symlink_to(real.cache_dir / name, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch, StandInHub() as hub:
        turn_clients_to(hub.endpoint, tmp_path / "hf-home", patch)
        folders = {repo: tmp_path / "made" / repo.replace("/", "--") for repo in MAKERS}
        commits = {}
        for repo, folder in folders.items():
            folder.parent.mkdir(parents=True, exist_ok=True)
            commits[repo] = push(hub, repo, folder)
        given = {"port": 0, "warm_examples": False, "answer_cache": 0, "profile": "auto", **settings}
        suite = serve(Settings(cache_dir=tmp_path / "cache", **given), block=False)
        try:
            pin_to(suite, commits)
            yield Course(hub, suite, Client(suite.url, verbose=False), folders, commits)
        finally:
            suite.close()


def pin_to(suite: Suite, commits: dict[str, str]) -> None:
    """The catalog's entries as they would be for the tiny checkpoints: their commits, their sizes."""
    for checkpoint in list(suite.runtime.catalog):
        if checkpoint.id in commits:
            changes = {"revision": commits[checkpoint.id], "parameters": 500_000}
            suite.runtime.catalog.add(checkpoint.model_copy(update=changes))
