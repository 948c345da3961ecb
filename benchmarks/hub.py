"""The Hub's share of the waiting: fetching, loading, and starting where there is none: `make bench-hub`.

Weights are random and of the real checkpoints' sizes; they come from a stand-in Hub on loopback, so that what is
measured is this suite and its libraries, not a network.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import pytest
import typer

from benchmarks.report import machine, megabytes, say, table, write_section
from benchmarks.server import Server
from shared.checkpoints.catalog import Catalog, Checkpoint
from shared.checkpoints.repository import wanted_files
from shared.events import result_of
from shared.serving.runtime import Runtime, start
from shared.settings import Settings
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import turn_clients_to
from tests.tiny_checkpoints import decoders, encoders, seq2seq
from tests.tiny_checkpoints.weights import as_pytorch_bin

BERT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
ROBERTA_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
DISTILBERT = {"dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12}
T5 = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8}
MARIAN = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 6), ("ffn_dim", 2048))}
SMALL100 = {
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_layers": 3,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
}
FLAN_T5 = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}
LLAMA = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_key_value_heads": 3}


@dataclass(frozen=True)
class Case:
    """A checkpoint of the catalog: whose tokenizer and configuration are made, and which sizes are the real ones."""

    repo: str
    make: Callable[[Path], Any]
    sizes: dict[str, int]
    pickle: bool = False


CASES = (
    Case("openai-community/gpt2", decoders.gpt2, {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}),
    Case(
        "microsoft/DialoGPT-medium",
        decoders.dialogpt,
        {"n_embd": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 50257},
        pickle=True,
    ),
    Case(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        decoders.llama_chat,
        {**LLAMA, "num_attention_heads": 9, "head_dim": 64, "vocab_size": 49152},
    ),
    Case("FacebookAI/roberta-large-mnli", encoders.roberta_mnli, {**ROBERTA_LARGE, "vocab_size": 50265}),
    Case(
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        encoders.distilbert_sst2,
        {**DISTILBERT, "vocab_size": 30522},
    ),
    Case("google-bert/bert-base-uncased", encoders.bert_mlm, {**BERT, "vocab_size": 30522}),
    Case(
        "distilbert/distilbert-base-cased-distilled-squad",
        encoders.distilbert_qa,
        {**DISTILBERT, "vocab_size": 28996},
    ),
    Case("google-t5/t5-small", seq2seq.t5, {**T5, "vocab_size": 32128}),
    Case("google/flan-t5-small", seq2seq.flan_t5, {**FLAN_T5, "vocab_size": 32128}),
    Case(
        "Helsinki-NLP/opus-mt-en-es",
        seq2seq.marian,
        {**MARIAN, "d_model": 512, "encoder_attention_heads": 8, "decoder_attention_heads": 8, "vocab_size": 65001},
        pickle=True,
    ),
    Case(
        "alirezamsh/small100",
        seq2seq.small100,
        {**SMALL100, "d_model": 1024, "vocab_size": 128112},
        pickle=True,
    ),
)


def full_size(case: Case, folder: Path) -> int:
    """Writes the checkpoint with random weights of the real sizes; returns the number of parameters."""
    import torch
    import transformers

    case.make(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    for name, value in case.sizes.items():
        setattr(config, name, value)
    model: Any = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])(config)
    if case.repo.startswith("HuggingFaceTB"):
        model = model.to(torch.bfloat16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20GB")
    if case.pickle:
        as_pytorch_bin(folder)
    return model.num_parameters()


@contextmanager
def turned_to_a_stand_in(home: Path) -> Iterator[StandInHub]:
    with pytest.MonkeyPatch.context() as patch, StandInHub() as hub:
        turn_clients_to(hub.endpoint, home, patch)
        yield hub


def measured(case: Case, checkpoint: Checkpoint, runtime: Runtime, hub: StandInHub, work: Path) -> list[object]:
    """One row: fetched, loaded, borrowed again."""
    say(f"{case.repo}: making random weights of its size")
    folder = work / "made"
    parameters = full_size(case, folder)
    commit = hub.add(case.repo, folder)
    shutil.rmtree(folder)
    checkpoint = checkpoint.model_copy(update={"revision": commit, "parameters": parameters})
    before, begun = hub.sent(), time.perf_counter()
    resolved = result_of(runtime.files.ensure(checkpoint))
    fetched, sent = time.perf_counter() - begun, hub.sent() - before
    needed = sum(
        file.size for file in wanted_files(runtime.hub.api.model_info(case.repo, files_metadata=True).siblings, "")
    )
    begun = time.perf_counter()
    with result_of(runtime.cache.borrow(resolved)) as borrowed:
        cold, held = time.perf_counter() - begun, borrowed.engine.nbytes
    warm = []
    for _ in range(20):
        begun = time.perf_counter()
        with result_of(runtime.cache.borrow(resolved)):
            warm.append(time.perf_counter() - begun)
    runtime.cache.unload(resolved.id)
    begun = time.perf_counter()
    with result_of(runtime.cache.borrow(resolved)):
        again = time.perf_counter() - begun
    runtime.cache.unload(resolved.id)
    hub.storage.clear()
    hub.repositories.clear()
    shutil.rmtree(work / "home" / "hub", ignore_errors=True)
    shutil.rmtree(work / "cache" / "converted", ignore_errors=True)
    name = f"{case.repo} ({'`.bin`' if case.pickle else 'safetensors'})"
    return [
        name,
        f"{parameters / 1e6:,.0f} M",
        megabytes(needed),
        f"{sent / needed:.4f}",
        f"{fetched:.1f} s",
        f"{cold:.1f} s",
        f"{again:.1f} s",
        f"{1e6 * median(warm):,.0f} µs",
        megabytes(held),
    ]


def loads(quick: bool) -> str:
    catalog = Catalog.read()
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        work = Path(name)
        with turned_to_a_stand_in(work / "home") as hub:
            runtime = start(Settings(cache_dir=work / "cache", profile="hub"))
            try:
                import transformers  # noqa: F401 - so that no row pays for it

                rows += [
                    measured(case, catalog.choose_by_id(case.repo), runtime, hub, work)
                    for case in (CASES[:1] if quick else CASES)
                ]
            finally:
                runtime.lane.close()
                runtime.cache.close()
    columns = ["checkpoint", "parameters", "needed", "fetched / needed", "fetching", "first load", "cold load", "warm"]
    return (
        "### Fetching and loading\n\nFrom a stand-in Hub on loopback, random weights of the real sizes. *Fetching*: "
        "until every hash is checked, pickles turned into safetensors. *First load*: hash checked once more, weights "
        "turned into what the engine reads, kernels compiled unless they were, ready to compute. *Cold load*: the same "
        "when all that is on disk; the files are in the system's page cache. *Warm*: borrowing what is in memory, the "
        "median of 20.\n\n" + table([*columns, "in memory"], rows)
    )


def starts(quick: bool) -> str:
    """`app.py` to the first page: no network asked, a Hub that refuses, and one that takes calls and never answers."""
    with StandInHub() as silent:
        silent.faults.hang("")
        ways = {
            "embedded": {"SUITE_PROFILE": "embedded"},
            "auto, connection refused": {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "auto, the Hub hangs": {"HF_ENDPOINT": silent.endpoint},
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(1 if quick else 4):
            for way, environment in ways.items():
                say(f"start {number + 1}, {way}")
                with Server(["app.py"], SUITE_WARM_EXAMPLES="false", HF_HUB_OFFLINE="0", **environment) as server:
                    seconds[way].append(server.seconds_to_page)
    base = median(seconds["embedded"])
    rows = [
        [way, f"{median(found):.2f} s", f"{min(found):.2f}–{max(found):.2f}", f"{median(found) - base:+.2f} s"]
        for way, found in seconds.items()
    ]
    return "### Start to first page without a Hub\n\nIn turns.\n\n" + table(
        ["profile", "median", "range", "against embedded"], rows
    )


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One checkpoint and one start, to try it out.")] = False,
    write: Annotated[Path | None, typer.Option(help="Also put the tables into this Markdown file.")] = None,
) -> None:
    """Fetching, loading, and starting with and without a Hub."""
    title = "## The Hub" + (" (a quick run: for trying out, not for reading)" if quick else "")
    text = "\n\n".join([title, machine(), loads(quick), starts(quick)])
    print(text)
    if write is not None:
        write_section(write, "hub", text)


if __name__ == "__main__":
    typer.run(main)
