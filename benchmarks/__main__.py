"""The suite against its peers, and what it costs: `make bench`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import busy_tabs, csv_rows, direct, engines, latency, lifecycle, overhead, small_engines, throughput
from benchmarks.bars import SHOWN, Section, rows_of, verdicts
from benchmarks.pair import Pair, pair
from benchmarks.report import machine, say, write_section
from shared.serving.space import ROOT

ALONE: dict[str, Callable[[bool], Section]] = {
    "setup": lambda quick: lifecycle.sizes(),
    "start": lifecycle.starts,
    "first-calls": lifecycle.first_calls,
    "memory": lifecycle.memory,
    "engines": engines.section,
    "small-engines": lambda quick: Section(small_engines.section(quick)),
    "overhead": lambda quick: Section(overhead.section(quick)),
}
"""Parts that start their own processes."""
BESIDE_PEER: dict[str, Callable[[Pair, bool], Section]] = {
    "load": throughput.section,
    "first-token": latency.first_tokens,
    "http": latency.without_client,
    "csv": csv_rows.section,
    "tabs": busy_tabs.section,
    "direct": direct.section,
}
"""Parts that ask the running suite and its naive peer."""
PARTS = (*ALONE, *BESIDE_PEER)
BENCHMARKS = ROOT / "docs" / "BENCHMARKS.md"
"""Shows the bars of a whole run."""
README = ROOT / "README.md"
"""Shows some of them."""


def main(
    quick: Annotated[bool, typer.Option("--quick", help="As few calls as show that it works.")] = False,
    only: Annotated[str, typer.Option(help=f"Parts, comma separated: {', '.join(PARTS)}. Empty runs all.")] = "",
    write: Annotated[Path | None, typer.Option(help="Also put the tables into this Markdown file.")] = None,
) -> None:
    """The suite beside a naive transformers and Gradio app, and beside other engines, in one run."""
    chosen = [name.strip() for name in only.split(",") if name.strip()] or list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(PARTS)}", param_hint="--only")
    facts = machine()
    begun = time.perf_counter()
    sections = run(chosen, quick)
    figures = {name: values for section in sections for name, values in section.figures.items()}
    title = "## Cost" + (" (a quick run: for trying out, not for reading)" if quick else "")
    minutes = f"Measured in {(time.perf_counter() - begun) / 60:.0f} minutes."
    text = "\n\n".join([title, facts, minutes, verdicts(figures), *(section.text for section in sections)])
    print(text)
    if write is not None:
        write_section(write, "bench", text)
        if not quick and not only:
            write_section(BENCHMARKS, "bars", f"{facts}\n\n{rows_of(figures)}")
            write_section(README, "speed", rows_of(figures, SHOWN))


def run(chosen: list[str], quick: bool) -> list[Section]:
    found = []
    for name, part in ALONE.items():
        if name in chosen:
            say(f"part {name}")
            found.append(part(quick))
    with ExitStack() as stack:
        running = stack.enter_context(pair()) if set(chosen) & set(BESIDE_PEER) else None
        for name, part in BESIDE_PEER.items():
            if name in chosen and running is not None:
                say(f"part {name}")
                found.append(part(running, quick))
    return found


if __name__ == "__main__":
    typer.run(main)
