"""The suite against its peer, and what it costs: `make bench`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import lifecycle, overhead, throughput
from benchmarks.report import machine, say, write_section
from benchmarks.workload import cases

PARTS = {
    "setup": lambda quick: lifecycle.sizes(),
    "start": lifecycle.starts,
    "memory": lambda quick: lifecycle.memory_and_first_calls(cases()),
    "overhead": overhead.section,
    "load": lambda quick: throughput.section(cases(), quick),
}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="As few calls as show that it works.")] = False,
    only: Annotated[str, typer.Option(help=f"One part: {', '.join(PARTS)}. Empty runs all.")] = "",
    write: Annotated[Path | None, typer.Option(help="Also put the tables into this Markdown file.")] = None,
) -> None:
    """Size, start, first calls, memory, overhead, and latency under load beside a plain Gradio and transformers app."""
    if only and only not in PARTS:
        raise typer.BadParameter(f"there are {', '.join(PARTS)}", param_hint="--only")
    facts = machine()
    begun = time.perf_counter()
    title = "## Cost" + (" (a quick run: for trying out, not for reading)" if quick else "")
    sections = [part(quick) for name, part in PARTS.items() if only in ("", name)]
    text = "\n\n".join([title, facts, *sections])
    say(f"measured in {time.perf_counter() - begun:.0f} s")
    print(text)
    if write is not None:
        write_section(write, "bench", text)


if __name__ == "__main__":
    typer.run(main)
