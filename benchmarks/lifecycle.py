"""What is measured of a process as a whole: size on disk, start, first calls, resident memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.bars import Section
from benchmarks.load import call, connect
from benchmarks.report import megabytes, milliseconds, say, table
from benchmarks.server import Server
from benchmarks.servers import naive, suite, trivial
from benchmarks.stats import spread
from benchmarks.workload import Case, cases
from shared.settings import Settings

__all__ = ["first_calls", "memory", "sizes", "starts", "suite"]

IMPORTS = {
    "suite": """
import psutil
from shared.transport.gradio.mount import import_gradio
import_gradio()
import shared.page.build
from shared.checkpoints.catalog import Catalog
from shared.engines.choice import engine_module
used = ("SmolLM2-135M-Instruct", "all-MiniLM-L6-v2", "firefox-translations-en-pt")
for checkpoint in Catalog.read():
    if checkpoint.id in used:
        engine_module(checkpoint)
import shared.engines.decoders.batched_engine
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel
print(psutil.Process().memory_info().rss)
""",
    "peer": """
import psutil
import benchmarks.peers.naive
from transformers import AutoModelForCausalLM, AutoTokenizer, BertModel, LlamaForCausalLM
print(psutil.Process().memory_info().rss)
""",
}
"""What serving with every engine for texts imports, and nothing else."""

ROUNDS = 3
CHECKPOINTS = ("zero_shot", "translate", "greedy")
"""A case for each checkpoint."""
IDLE_UNLOAD = 2
"""Seconds after which that server lets go of a checkpoint."""
MOST_WAIT = 30.0


def disk_usage(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def sizes() -> Section:
    """What set-up leaves on the disk."""
    settings = Settings()
    rows = [
        ["packages (the virtual environment)", megabytes(disk_usage(Path(sys.prefix)))],
        ["cache: weights as fetched", megabytes(disk_usage(settings.weights_dir))],
        ["cache: converted weights", megabytes(disk_usage(settings.converted_dir))],
    ]
    return Section("### Size of a set-up\n\n" + table(["what", "on disk"], rows))


def starts(quick: bool) -> Section:
    """Start to first page and to first answer, in turns; the first pays for what the disk has not in memory yet."""
    case = next(case for case in cases() if case.key == "zero_shot")
    kinds: dict[str, tuple[Callable[[], Server], str]] = {
        "a trivial Gradio app": (trivial, ""),
        "the suite": (lambda: suite(warm=True), case.api_name),
        "the naive peer": (naive, case.peer_name),
    }
    pages: dict[str, list[float]] = {kind: [] for kind in kinds}
    answers: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(1 if quick else ROUNDS):
        for kind, (server, api_name) in kinds.items():
            say(f"start {number + 1}: {kind}")
            begun = time.perf_counter()
            with server() as started:
                pages[kind].append(started.seconds_to_page)
                if api_name:
                    client = connect(started.url)
                    call(client, api_name, case.inputs(number))
                    answers[kind].append(time.perf_counter() - begun)
                    client.close()
    rows = [[kind, spread(pages[kind]), spread(answers[kind]) if answers[kind] else ""] for kind in kinds]
    over = [a - b for a, b in zip(pages["the suite"], pages["a trivial Gradio app"], strict=True)]
    text = (
        "### Start\n\nFrom the command to the first `GET /` answered with 200, set-up done before; in turns. *First "
        "answer*: of zero-shot by MiniLM, asked as soon as the page is there, `gradio_client`'s own start included. "
        "The suite computes its first examples meanwhile, as it does for users.\n\n"
        + table(["seconds", "to the first page", "to the first answer"], rows)
    )
    return Section(text, {"page over trivial": over})


def first_calls(quick: bool) -> Section:
    """The first call of each endpoint, the second, and the first after its checkpoint was evicted."""
    rows = []
    with suite(SUITE_IDLE_UNLOAD=str(IDLE_UNLOAD)) as server:
        client = connect(server.url)
        chosen = [case for case in cases() if case.key in (CHECKPOINTS[:1] if quick else CHECKPOINTS)]
        for case in chosen:
            say(f"first calls: {case.title}")
            wait_until_unloaded(client)
            first, loaded_by = timed(client, case, 0)
            second, _ = timed(client, case, 1)
            wait_until_unloaded(client)
            evicted, reloaded = timed(client, case, 2)
            rows.append([case.title, milliseconds(first), milliseconds(second),
                         milliseconds(evicted) if reloaded and loaded_by else "was not evicted"])  # fmt: skip
        client.close()
    return Section(
        "### First call, second call, first call after eviction\n\nThrough `gradio_client`, endpoints in this order in "
        "one process; the first of all pays for the imports too. Nothing is in memory before the first and the third."
        f" (`SUITE_IDLE_UNLOAD={IDLE_UNLOAD}`.)\n\n" + table(["endpoint", "first", "second", "after eviction"], rows)
    )


def timed(client: Any, case: Case, number: int) -> tuple[float, bool]:
    """Seconds of a call, and whether it had to load the weights."""
    begun = time.perf_counter()
    run = call(client, case.api_name, case.inputs(number))[-1]
    return time.perf_counter() - begun, not run.get("loaded")


def wait_until_unloaded(client: Any) -> None:
    """Until the model cache holds nothing; gives up after a while, and the row says so."""
    deadline = time.perf_counter() + MOST_WAIT
    while time.perf_counter() < deadline:
        report = call(client, "/models", {})
        if not (report[0] if isinstance(report, (list, tuple)) else report)["bytes_in_use"]:
            return
        time.sleep(0.5)


def imports(of: str) -> int:
    """Resident bytes of a process that has imported what that server imports."""
    command = [sys.executable, "-c", IMPORTS[of]]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    return int(found.stdout.split()[-1])


def memory(quick: bool) -> Section:
    """Resident memory with every text endpoint used, beside the naive peer with the same tasks."""
    wanted = [case for case in cases() if case.space and case.peer]
    held: dict[str, tuple[int, int, int]] = {}
    for kind, make in (("suite", suite), ("peer", naive)):
        say(f"memory, {kind}")
        bare = imports(kind)
        with make() as server:
            before = server.resident()
            client = connect(server.url)
            for case in cases() if kind == "suite" else wanted:
                name, inputs = (case.api_name, case.inputs) if kind == "suite" else (case.peer_name, case.peer)
                for turn in range(2):
                    assert inputs is not None
                    call(client, name, inputs(turn))
            held[kind] = bare, before, server.resident()
            client.close()
    apart = {} if quick else {space: used_alone(space) for space in dict.fromkeys(c.space for c in cases() if c.space)}
    models = {kind: after - bare for kind, (bare, _, after) in held.items()}
    ratio = models["suite"] / models["peer"]
    names = {"suite": "the suite, every text endpoint called", "peer": "the naive peer, every task called"}
    rows = [[names[kind], *map(megabytes, values), megabytes(models[kind])] for kind, values in held.items()]
    text = (
        "### Resident memory\n\nResident set of the process and its children; each beside a process that has imported "
        "the same and holds no model.\n\n"
        + table(["process", "imports alone", "serving, before any call", "all used", "all used less imports"], rows)
        + f"\n\nThe suite holds {ratio:.2f} of what the naive peer holds over their imports."
    )
    if apart:
        together = held["suite"][-1]
        each = ", ".join(f"{space} {megabytes(size)}" for space, size in apart.items())
        text += (
            f" Its Spaces, each served by itself: {each}; {megabytes(sum(apart.values()))} in all, of which the suite "
            f"takes {together / sum(apart.values()):.2f}."
        )
    return Section(text, {"memory over peer": [ratio]})


def used_alone(space: str) -> int:
    """Resident bytes of one Space served by itself, with each of its endpoints called."""
    say(f"memory, the {space} Space by itself")
    with suite("--spaces", space) as server:
        client = connect(server.url)
        for case in cases():
            if case.space == space:
                call(client, case.api_name, case.inputs(0))
        client.close()
        return server.resident()
