"""Quality of each embedded checkpoint on `tests/data`, through the Spaces' own code: `make eval`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import quality_labels, quality_texts
from benchmarks.quality import ROOM, Row
from benchmarks.report import machine, say, table, write_section
from shared.context import Context
from shared.runtime import start
from shared.settings import Settings

COLUMNS = ("task", "method", "metric", "n", "value", "95 % interval", "floor", "seconds")

NOTES = f"""\
Values are in points (0 to 100). *Interval*: bootstrap over the items, 95 %; one of no width means that every item was \
right, which with n items still allows for about 300/n points of mistakes. *Floor*: a figure measured before on other \
small sets, less {ROOM:.0f} points, as a sanity check; rows without one have none. *Seconds*: computing all n items in \
batches, loading left out. Few-shot rows: examples and judged items never overlap, the judged items are the same for \
every number of examples, and the accuracy is the mean over {quality_labels.DRAWS} fixed draws of examples, which run \
in one go for raw and calibrated."""


def evaluate(quick: bool) -> str:
    """The whole section in Markdown."""
    facts = machine()
    runtime = start(Settings())
    context = Context(runtime, visitor="evaluation")
    parts = (quality_labels.zero_shot, quality_labels.sentiment, quality_labels.few_shot, *quality_texts.PARTS)
    begun = time.perf_counter()
    try:
        rows: list[Row] = [row for part in parts for row in part(context, quick)]
        curve = quality_labels.scale_curve(context, quick)
    finally:
        runtime.lane.close()
        runtime.cache.close()
    say(f"evaluated in {time.perf_counter() - begun:.0f} s")
    title = "## Quality" + (" (a quick run on a few items: for trying out, not for reading)" if quick else "")
    results = table(COLUMNS, [row.cells() for row in rows], left=3)
    return "\n\n".join([title, facts, results, NOTES, curve])


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A few items of each file, to try it out.")] = False,
    write: Annotated[Path | None, typer.Option(help="Also put the tables into this Markdown file.")] = None,
) -> None:
    """Accuracy, ROUGE and chrF of each embedded checkpoint on tests/data."""
    text = evaluate(quick)
    print(text)
    if write is not None:
        write_section(write, "eval", text)


if __name__ == "__main__":
    typer.run(main)
