"""The suite at one client against its own engine called directly, in turns: what all that is around it costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from benchmarks.bars import Section
from benchmarks.engines import SUITE
from benchmarks.load import call
from benchmarks.pair import Pair
from benchmarks.plain_http import PlainClient
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
    with Worker("decoders", SUITE) as worker, closing(PlainClient(pair.suite.url)) as plain:

        def by_client(inputs: dict[str, Any]) -> Any:
            return call(client, "/generate", inputs)

        def by_http(inputs: dict[str, Any]) -> Any:
            return plain.call("/generate", inputs)

        def through_suite(ask: Callable[[dict[str, Any]], Any], prompt: str, new: int) -> tuple[float, float]:
            begun = time.perf_counter()
            run: dict[str, Any] = ask({"prompt": prompt, "max_new_tokens": new})[-1]
            taken = time.perf_counter() - begun
            return run["new_tokens"] / taken, run["new_tokens"] / run["seconds_running"]

        def directly(prompt: str, new: int) -> float:
            ids = tokenizer.encode(prompt, add_special_tokens=False).ids
            found = worker.do("generate", prompts=[ids], new=new)
            return len(found["tokens"][0]) / found["seconds"]

        for new in LENGTHS[:1] if quick else LENGTHS:
            say(f"the suite and its engine called directly, {new} tokens")
            through, http, computing, direct = [], [], [], []
            for number in range(-1, 2 if quick else ROUNDS):
                prompts = [openings(FAR + 30 * new + 10 * way + number) for way in range(2)]
                whole, running = through_suite(by_client, prompts[0], new)
                alone = directly(prompts[0], new)
                if number >= 0:
                    through, computing, direct = [*through, whole], [*computing, running], [*direct, alone]
                    # Another prompt, whose beginning is not kept; as many tokens.
                    http.append(through_suite(by_http, prompts[1], new)[0])
            ratios, plainly = ([a / b for a, b in zip(each, direct, strict=True)] for each in (through, http))
            figures |= {f"suite over direct, {new}": ratios, f"suite over direct by HTTP, {new}": plainly}
            rows.append([str(new), *map(spread, (through, http, computing, direct, ratios, plainly)),
                         f"{percentile(computing, 0.5) / percentile(direct, 0.5):.2f}"])  # fmt: skip
    text = (
        "### The suite over its engine\n\n`/generate`, greedy, one client, against the same engine in another process "
        "called directly, in turns. *By the client* and *by HTTP*: new tokens by the seconds from asking to the last "
        "answer at `gradio_client`, which looks for answers twenty times a second, or over one kept-open connection; "
        "*computing*: by the seconds that RunInfo calls running.\n\n"
        + table(
            [
                "new tokens",
                "by the client, tokens/s",
                "by HTTP, tokens/s",
                "computing, tokens/s",
                "directly, tokens/s",
                "client ÷ directly",
                "HTTP ÷ directly",
                "computing ÷ directly",
            ],
            rows,
        )
    )
    return Section(text, figures)
