"""Engines alone, each in a process of its own and asked in turns: SmolLM2 here, the others in `small_engines.py`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bars import Section
from benchmarks.peers.decoders import MAKERS
from benchmarks.report import installed, megabytes, say, table
from benchmarks.servers import float_weights
from benchmarks.stats import percentile, spread
from benchmarks.worker import Absent, Worker
from benchmarks.workload import texts_of

SUITE, TRUTH = "the suite's engine", "PyTorch reference, fp32"
SHORT = 12
"""Prompt tokens before what is decoded."""
BATCHES = (1, 8)
ONE_BY_ONE = ("PyTorch reference, fp32", "PyTorch reference, bf16")
"""They decode a row at a time, so a batch of eight says nothing new."""
LIBRARIES = ("ctranslate2", "onnxruntime", "xllamacpp")


@dataclass(frozen=True)
class Size:
    """How much is asked."""

    rounds: int
    prefill: int
    """Prompt tokens."""
    new: int
    alike: int
    """Prompts whose texts are compared with the reference's."""


FULL, QUICK = Size(3, 253, 64, 6), Size(1, 65, 16, 2)


@dataclass
class Found:
    """Of one engine and batch size, a value a round."""

    prefill: list[float] = field(default_factory=list)
    """Prompt tokens a second."""
    decode: list[float] = field(default_factory=list)
    """New tokens a second after the first, in all rows."""
    texts: list[list[list[int]]] = field(default_factory=list)


class Prompts:
    """Token ids from the articles, never the same twice: a prompt that was read before is no work."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(Path(float_weights()) / "tokenizer.json"))
        text = "\n\n".join(item["text"] for item in texts_of("articles"))
        self._ids = tokenizer.encode(text, add_special_tokens=False).ids
        self._starts = itertools.cycle(range(0, len(self._ids) - FULL.prefill, 37))

    def rows(self, count: int, length: int) -> list[list[int]]:
        return [self._ids[start : start + length] for start in itertools.islice(self._starts, count)]


@contextmanager
def workers(module: str, names: Sequence[str]) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """Those contestants that can take part, and why the others cannot."""
    with ExitStack() as stack:
        there: dict[str, Worker] = {}
        absent: dict[str, str] = {}
        for name in names:
            say(f"loading {module}: {name}")
            try:
                there[name] = stack.enter_context(Worker(module, name))
            except Absent as error:
                absent[name] = str(error)
        yield there, absent


def section(quick: bool) -> Section:
    prompts, size = Prompts(), QUICK if quick else FULL
    found: dict[tuple[str, int], Found] = {}
    with workers("decoders", tuple(MAKERS)) as (there, absent), Worker("memory", "memory") as memory:
        bandwidth = {threads: memory.do("stream", threads=threads) for threads in (1, 2)}
        for name in list(there):
            try:
                there[name].do("generate", prompts=prompts.rows(1, SHORT), new=4)
            except Absent as error:
                absent[name] = str(error)
                del there[name]
        for number in range(size.rounds):
            for batch in BATCHES:
                say(f"SmolLM2 engines, batch {batch}, round {number + 1}")
                asked = [prompts.rows(batch, length) for length in (size.prefill, SHORT, SHORT)]
                for name, worker in there.items():
                    if batch == 1 or name not in ONE_BY_ONE:
                        measure(worker, asked, size.new, found.setdefault((name, batch), Found()))
        for threads in (1, 2):
            bandwidth[threads] = max(bandwidth[threads], memory.do("stream", threads=threads))
        bandwidth[2] = max(bandwidth.values())  # two threads can have what one had; on a busy machine they had less
        say("SmolLM2 engines, their texts beside the reference's")
        facts = {name: worker.facts for name, worker in there.items()}
        truth = reference_texts(there, prompts.rows(size.alike, SHORT), size.new)
    return report(size, found, facts, absent, bandwidth, truth)


def measure(worker: Worker, asked: Sequence[Any], new: int, found: Found) -> None:
    """Prefill is the time to one token after a long prompt; decode what many take longer than one."""
    long, short, again = asked
    batch = len(long)
    first = worker.do("generate", prompts=long, new=1)
    one = worker.do("generate", prompts=short, new=1)
    many = worker.do("generate", prompts=again, new=new)
    found.prefill.append(batch * len(long[0]) / first["seconds"])
    made = sum(map(len, many["tokens"])) - batch
    found.decode.append(made / max(many["seconds"] - one["seconds"], 1e-9))


def reference_texts(there: dict[str, Worker], prompts: list[list[int]], new: int) -> dict[str, tuple[int, float]]:
    """For each engine: rows whose greedy tokens are the float32 reference's, and the mean share of equal first ones."""
    if TRUTH not in there:
        return {}
    right = there[TRUTH].do("generate", prompts=prompts, new=new)["tokens"]
    found = {}
    for name, worker in there.items():
        rows = [worker.do("generate", prompts=[prompt], new=new)["tokens"][0] for prompt in prompts]
        shares = [agreeing(row, wanted) / max(1, len(wanted)) for row, wanted in zip(rows, right, strict=True)]
        found[name] = sum(share == 1 for share in shares), sum(shares) / len(shares)
    return found


def agreeing(row: Sequence[int], wanted: Sequence[int]) -> int:
    """How many tokens agree from the first on; one that goes on after the end token is right as far as that."""
    return next((i for i, (a, b) in enumerate(zip(row, wanted, strict=False)) if a != b), min(len(row), len(wanted)))


COLUMNS = ("engine", "format", "threads", "batch", "prefill, tokens/s", "decode, tokens/s", "weights a token",
           "share of the ceiling", "as the reference")  # fmt: skip


def report(
    size: Size,
    found: dict[tuple[str, int], Found],
    facts: dict[str, dict[str, Any]],
    absent: dict[str, str],
    bandwidth: dict[int, float],
    truth: dict[str, tuple[int, float]],
) -> Section:
    rows, figures = [], {}
    for name in MAKERS:
        if name in absent:
            rows.append([name, absent[name], *[""] * (len(COLUMNS) - 2)])
        for batch in BATCHES:
            if (name, batch) not in found:
                continue
            one, about = found[name, batch], facts[name]
            shares = [rate * about["stored"] / bandwidth[min(about["threads"], 2)] for rate in one.decode]
            if name == SUITE and batch == 1:
                figures["decode: share of bandwidth"] = shares
            alike = truth.get(name)
            rows.append([
                name, about["engine"], str(about["threads"]), str(batch), spread(one.prefill), spread(one.decode),
                megabytes(about["stored"]) if batch == 1 else "",
                f"{100 * percentile(shares, 0.5):.0f} %" if batch == 1 else "",
                f"{alike[0]} rows, {100 * alike[1]:.0f} % of tokens" if alike and batch == 1 else "",
            ])  # fmt: skip
    ceiling = "; ".join(
        f"{threads} thread{'s' * (threads > 1)} {rate / 1e9:.1f} GB/s" for threads, rate in bandwidth.items()
    )
    versions = ", ".join(f"{name} {installed(name)}" for name in LIBRARIES)
    about_it = (
        f"{versions}. Each in a process of its own, asked in turns. *Prefill*: {size.prefill} prompt tokens to the "
        f"first new one. *Decode*: greedy, the tokens after the first of {size.new}, after {SHORT} prompt tokens, all "
        "rows together; no prompt twice. The suite's rows of a batch are visitors who ask at once. *Ceiling*: "
        f"streaming through memory, measured before and after: {ceiling}; the share is weights a token, as stored, × "
        f"tokens/s ÷ bandwidth of as many threads. *As the reference*: greedy texts of {size.new} tokens equal to the "
        "float32 reference's, and how far the texts agree from their first token on. llama.cpp's weights are the "
        "published Q4_1; all others are made of the same, dequantised; its tokens are read back from its text."
    )
    text = "\n\n".join(["### Engines alone: SmolLM2-135M-Instruct", about_it, table(COLUMNS, rows, left=2)])
    return Section(text, figures)
