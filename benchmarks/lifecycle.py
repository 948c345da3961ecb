"""What is measured of a process as a whole: sizes on disk, start, first and second calls, resident memory."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.load import call, connect
from benchmarks.report import megabytes, milliseconds, say, table
from benchmarks.server import Server
from benchmarks.workload import Case
from shared.settings import Settings

IMPORTS = """
import psutil, sys
from shared.suite import import_gradio
import_gradio()
import shared.page, shared.engines.causal_lm, shared.engines.sentence_encoder, shared.engines.marian
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel
print(psutil.Process().memory_info().rss)
"""
"""What serving with every engine imports, and nothing else."""

STARTS = 3


def suite(*arguments: str, warm: bool = False) -> Server:
    """The suite as a user starts it; without `warm` it computes nothing before it is asked."""
    return Server(["app.py", *arguments], SUITE_WARM_EXAMPLES=str(warm).lower())


def disk_usage(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def sizes() -> str:
    """What set-up leaves on the disk."""
    cache = Settings().cache_dir
    rows = [
        ["packages (the virtual environment)", megabytes(disk_usage(Path(sys.prefix)))],
        ["cache: weights as fetched", megabytes(disk_usage(Settings().weights_dir))],
        ["cache: converted weights", megabytes(disk_usage(Settings().converted_dir))],
        ["cache in all", megabytes(disk_usage(cache))],
    ]
    return "### Size of a set-up\n\n" + table(["what", "on disk"], rows)


def starts(quick: bool) -> str:
    """Start to first page, several times: the first pays for what the disk has not in memory yet."""
    seconds = []
    for number in range(1 if quick else STARTS):
        say(f"start {number + 1}")
        with suite(warm=True) as server:
            seconds.append(server.seconds_to_page)
    rows = [[f"start {i}", f"{value:.1f} s"] for i, value in enumerate(seconds, 1)]
    return (
        "### Start to first page\n\nFrom `app.py` to the first `GET /` answered with 200, set-up done before.\n\n"
        + table(["", "seconds"], rows)
    )


def imports() -> int:
    """Resident bytes of a process that has imported what the suite imports."""
    found = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    return int(found.stdout.split()[-1])


@dataclass
class Calls:
    """The first and the second call of one endpoint in a fresh process."""

    case: Case
    first: float
    second: float
    loaded: bool
    """Whether an earlier call had loaded the checkpoint already."""


def use_once(server: Server, wanted: list[Case], *, twice: bool = False) -> list[Calls]:
    """Calls each endpoint, and once more with `twice`; the second time with another text."""
    client = connect(server.url)
    found = []
    for case in wanted:
        taken: list[float] = []
        run: dict[str, Any] = {}
        for number in range(2 if twice else 1):
            begun = time.perf_counter()
            answer = call(client, case.api_name, case.inputs(number))
            taken.append(time.perf_counter() - begun)
            run = run or answer[-1]
        found.append(Calls(case, taken[0], taken[-1], bool(run.get("loaded"))))
    client.close()
    return found


def memory_and_first_calls(cases: list[Case]) -> str:
    """Each Space in a process of its own, then all Spaces in one."""
    say("memory of the imports")
    bare = imports()
    alone: dict[str, int] = {}
    calls: list[Calls] = []
    for space in dict.fromkeys(case.space for case in cases if case.space):
        say(f"the {space} Space by itself")
        with suite("--spaces", space) as server:
            calls += use_once(server, [case for case in cases if case.space == space], twice=True)
            alone[space] = server.resident()
    say("all Spaces in one process")
    with suite() as server:
        idle = server.resident()
        use_once(server, [case for case in cases if case.space])
        together = server.resident()
    total = sum(alone.values())
    first = table(
        ["endpoint", "first call", "second call", "weights"],
        [
            [c.case.title, milliseconds(c.first), milliseconds(c.second), "there" if c.loaded else "loaded by it"]
            for c in calls
        ],
    )
    memory = table(
        ["process", "resident"],
        [
            ["imports alone, no model", megabytes(bare)],
            ["the suite serving, before any call", megabytes(idle)],
            ["**the suite, every endpoint called**", f"**{megabytes(together)}**"],
            *([f"{space} by itself, every endpoint called", megabytes(size)] for space, size in alone.items()),
            [f"sum of the {len(alone)} by themselves", megabytes(total)],
            ["the suite over that sum", f"{together / total:.2f}"],
            ["models: the suite less its imports", megabytes(together - bare)],
            [f"models: the sum less {len(alone)} times the imports", megabytes(total - len(alone) * bare)],
        ],
    )
    return (
        "### First and second call\n\nThrough `gradio_client`; a fresh process for each Space, endpoints in this "
        "order, no examples computed in advance.\n\n"
        f"{first}\n\n### Resident memory\n\nResident set of the process and its children.\n\n{memory}"
    )
