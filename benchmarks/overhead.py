"""What the suite adds to a call, beside what Gradio itself costs; all in one process, taking turns.

Run by `python -m benchmarks` as `python -m benchmarks.overhead ROUNDS`, so that nothing else is in its process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from benchmarks import ROOT
from benchmarks.load import call, connect
from benchmarks.quality_labels import TOPICS
from benchmarks.report import milliseconds, say, table
from benchmarks.stats import percentile
from benchmarks.workload import Case, cases

AIM = 0.015
"""Seconds over Gradio's own floor."""

KINDS = {
    "direct": "the task, called directly",
    "direct-other-thread": "the task, called from a new thread",
    "function": "Gradio's floor: `gr.api` of a function that returns its input",
    "generator": "Gradio's floor: the same as an async generator",
    "suite": "the suite's `/zero_shot` through `gradio_client`",
}


def zero_shot() -> Case:
    return next(case for case in cases() if case.api_name == "/zero_shot")


def echo_server() -> Any:
    """A Gradio app that does nothing, with the suite's queue settings. Its inputs are those of `/zero_shot`."""
    import gradio as gr

    def function(text: str, candidate_labels: str = TOPICS) -> tuple[dict, dict]:
        return {"label": text, "confidences": []}, {}

    async def generator(text: str, candidate_labels: str = TOPICS) -> AsyncIterator[tuple[dict, dict]]:
        yield {"label": text, "confidences": []}, {}

    # Gradio reads the type hints as objects, and this module's are strings.
    function.__annotations__ = {"text": str, "candidate_labels": str, "return": tuple[dict, dict]}
    generator.__annotations__ = dict(function.__annotations__)
    with gr.Blocks(analytics_enabled=False) as blocks:
        for echo in (function, generator):
            gr.api(echo, api_name=echo.__name__, concurrency_limit=None)
    blocks.queue(api_open=False, default_concurrency_limit=None)
    blocks.launch(
        server_name="127.0.0.1",
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        run_history=False,
        ssr_mode=False,
    )
    return blocks


def timings(rounds: int) -> dict[str, list[float]]:
    """Seconds of every call by kind; the kinds take turns, so that noise meets all of them alike."""
    from concurrent.futures import ThreadPoolExecutor

    from classification import SPACE
    from shared.serving.context import Context
    from shared.serving.endpoint import collect
    from shared.settings import Settings
    from shared.suite import serve

    suite = serve(Settings(port=0, warm_examples=False, answer_cache=0), block=False)
    echo = echo_server()
    inputs = zero_shot().inputs
    endpoint = SPACE.endpoint("zero_shot")
    context = Context(suite.runtime, visitor="overhead")
    ours, theirs = connect(suite.url), connect(echo.local_url)

    def direct(number: int) -> Any:
        return collect(endpoint.run(inputs(number), context, suite.traffic))

    def in_new_thread(number: int) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(direct, number).result()

    kinds: dict[str, Callable[[int], Any]] = {
        "direct": direct,
        "direct-other-thread": in_new_thread,
        "function": lambda number: call(theirs, "/function", inputs(number)),
        "generator": lambda number: call(theirs, "/generator", inputs(number)),
        "suite": lambda number: call(ours, "/zero_shot", inputs(number)),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(-3, rounds):
        for name, ask in kinds.items():
            begun = time.perf_counter()
            ask(number)
            if number >= 0:
                found[name].append(time.perf_counter() - begun)
    for client in (ours, theirs):
        client.close()
    suite.close()
    echo.close(verbose=False)
    return found


def section(quick: bool) -> str:
    """Runs the measurement in a process of its own and reports it."""
    say("overhead over the task and over Gradio")
    rounds = 5 if quick else 40
    command = [sys.executable, "-m", "benchmarks.overhead", str(rounds)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=900)
    found: dict[str, list[float]] = json.loads(run.stdout.splitlines()[-1])
    middle = {name: percentile(values, 0.5) for name, values in found.items()}
    rows = [[KINDS[name], milliseconds(middle[name]), milliseconds(percentile(found[name], 0.95))] for name in found]
    over_task = middle["suite"] - middle["direct"]
    over_floor = over_task - middle["function"]
    verdict = "within" if over_floor < AIM else "**over**"
    return (
        f"### Overhead of the suite\n\n`/zero_shot` with MiniLM, {rounds} calls of each kind taking turns, client and "
        "servers in one process.\n\n"
        + table(["call", "p50", "p95"], rows)
        + f"\n\nThe suite adds {milliseconds(over_task)} to the task, of which Gradio's floor is "
        f"{milliseconds(middle['function'])} (as a generator {milliseconds(middle['generator'])}): "
        f"**{1000 * over_floor:.1f} ms are the suite's own**, {verdict} the {milliseconds(AIM)} aimed at "
        f"({1000 * (over_task - middle['generator']):.1f} ms over the generator)."
    )


if __name__ == "__main__":
    print(json.dumps(timings(int(sys.argv[1]))))
