"""The suite at one client against its own engine called directly, in turns: what all that is around it costs."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.bars import Section
from benchmarks.engines import SUITE
from benchmarks.load import call
from benchmarks.pair import Pair
from benchmarks.report import say, table
from benchmarks.stats import percentile, spread
from benchmarks.worker import Worker
from benchmarks.workload import openings

ROUNDS = 5
LENGTHS = (64, 256)
FAR = 500_000


def section(pair: Pair, quick: bool) -> Section:
    from pathlib import Path

    from tokenizers import Tokenizer

    from benchmarks.servers import float_weights

    tokenizer = Tokenizer.from_file(str(Path(float_weights()) / "tokenizer.json"))
    client = pair.suite_clients[0]
    rows, figures = [], {}
    with Worker("decoders", SUITE) as worker:

        def through_suite(prompt: str, new: int) -> tuple[float, float]:
            begun = time.perf_counter()
            run: dict[str, Any] = call(client, "/generate", {"prompt": prompt, "max_new_tokens": new})[-1]
            taken = time.perf_counter() - begun
            return run["new_tokens"] / taken, run["new_tokens"] / run["seconds_running"]

        def directly(prompt: str, new: int) -> float:
            ids = tokenizer.encode(prompt, add_special_tokens=False).ids
            found = worker.do("generate", prompts=[ids], new=new)
            return len(found["tokens"][0]) / found["seconds"]

        for new in LENGTHS[:1] if quick else LENGTHS:
            say(f"the suite and its engine called directly, {new} tokens")
            through, computing, direct = [], [], []
            for number in range(-1, 2 if quick else ROUNDS):
                prompt = openings(FAR + 10 * new + number)
                whole, running = through_suite(prompt, new)
                alone = directly(prompt, new)
                if number >= 0:
                    through, computing, direct = [*through, whole], [*computing, running], [*direct, alone]
            ratios = [a / b for a, b in zip(through, direct, strict=True)]
            if new == LENGTHS[0]:
                figures["suite over direct"] = ratios
            rows.append([str(new), spread(through), spread(computing), spread(direct), spread(ratios),
                         f"{percentile(computing, 0.5) / percentile(direct, 0.5):.2f}"])  # fmt: skip
    text = (
        "### The suite over its engine\n\n`/generate`, greedy, one client, against the same engine in another process "
        "called directly with the same prompt, in turns. *Through the suite*: new tokens by the seconds from asking "
        "to the last answer at the client, Gradio's share included; *computing*: by the seconds that RunInfo calls "
        "running.\n\n"
        + table(
            [
                "new tokens",
                "through the suite, tokens/s",
                "computing, tokens/s",
                "directly, tokens/s",
                "ratio",
                "computing ÷ directly",
            ],
            rows,
        )
    )
    return Section(text, figures)
