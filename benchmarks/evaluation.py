"""Quality of each embedded checkpoint by either engine, through the Spaces' own code: `make eval`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmarks import quality_labels, quality_texts
from benchmarks.quality import ROOM
from benchmarks.quality_engines import beside, results, verdicts
from benchmarks.report import machine, say, write_section
from shared.engines.decoders import reference
from shared.serving.context import Context
from shared.serving.runtime import start
from shared.settings import Settings

PARTS = (
    quality_labels.zero_shot,
    quality_labels.news,
    quality_labels.sentiment,
    quality_labels.few_shot,
    *quality_texts.PARTS,
)

NOTES = f"""\
Values are in points (0 to 100), by the fast engine (the default) and by the reference (`SUITE_ENGINES=reference`, in \
float32), both in this run. *Difference*: fast less reference. *Same answer*: the share of labels or texts that are \
the reference's, letter for letter. *Interval*: of the fast engine's values, bootstrap over the items, 95 %; one of no \
width means that every item was right, which with n items still allows for about 300/n points of mistakes. *Floor*: a \
figure measured before on other small sets, less {ROOM:.0f} points, as a sanity check; rows without one have none. \
*Seconds*: computing all n items in batches, loading left out. Few-shot rows: examples and judged items never \
overlap, the judged items are the same for every number of examples, and the accuracy is the mean over \
{quality_labels.DRAWS} fixed draws of examples, which run in one go for raw and calibrated. News: headline and first \
sentences, {quality_labels.ARTICLE_WORDS} words, of every {quality_labels.EVERY_ARTICLE}th BBC article (Greene & \
Cunningham 2006), fetched at run time."""

AGREEMENT = """\
### The fast engines against the reference

Labels of all zero-shot and sentiment rows of a checkpoint count together, and of all few-shot rows (each draw of \
examples by itself); so do its summaries, by the mean over all."""


def evaluate(quick: bool) -> str:
    """The whole section in Markdown."""
    facts = machine()
    begun = time.perf_counter()
    with ExitStack() as stack:
        fast, reference = (stack.enter_context(suite_of(engines)) for engines in ("fast", "reference"))
        # Row by row by one and then by the other, so that both meet the machine in the same state.
        pairs = [pair for part in PARTS for pair in beside(part(fast, quick), part(reference, quick))]
        curve = quality_labels.scale_curve(fast, quick)
    say(f"evaluated in {time.perf_counter() - begun:.0f} s")
    title = "## Quality" + (" (a quick run on a few items: for trying out, not for reading)" if quick else "")
    return "\n\n".join([title, facts, results(pairs), NOTES, AGREEMENT, verdicts(pairs), curve])


@contextmanager
def suite_of(engines: Literal["fast", "reference"]) -> Iterator[Context]:
    """The suite's parts with these engines, and half of the budget for weights; its cache lets go of what is over."""
    settings = Settings()
    # Where the processor has bfloat16, the reference rounds to it; what the fast engines are held to is float32.
    reference.cpu_has_bfloat16 = lambda: False
    runtime = start(settings.model_copy(update={"engines": engines, "memory_budget": settings.budget // 2}))
    try:
        yield Context(runtime, visitor="evaluation")
    finally:
        runtime.lane.close()
        runtime.cache.close()


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A few items of each file, to try it out.")] = False,
    write: Annotated[Path | None, typer.Option(help="Also put the tables into this Markdown file.")] = None,
) -> None:
    """Accuracy, ROUGE and chrF of each embedded checkpoint, and how far its fast engine agrees with the reference."""
    text = evaluate(quick)
    print(text)
    if write is not None:
        write_section(write, "eval", text)


if __name__ == "__main__":
    typer.run(main)
