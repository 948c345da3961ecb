"""The bars: what was asked of the suite, and what this run measured for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.report import table
from benchmarks.stats import percentile


@dataclass
class Section:
    """What a part of the benchmark found: its tables, and by name the figures that bars are read off."""

    text: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    """A value a round; the median is judged."""


@dataclass(frozen=True)
class Bar:
    what: str
    figure: str
    """Name of the figure that is judged."""
    bound: float
    show: Callable[[float], str]
    at_most: bool = False

    def cells(self, figures: Mapping[str, Sequence[float]]) -> list[str]:
        wanted = f"{'≤' if self.at_most else '≥'} {self.show(self.bound)}"
        values = figures.get(self.figure)
        if not values:
            return [self.what, wanted, "not measured in this run", ""]
        middle = percentile(values, 0.5)
        spread = f" ({self.show(min(values))} to {self.show(max(values))})" if len(values) > 1 else ""
        passed = middle <= self.bound if self.at_most else middle >= self.bound
        return [self.what, wanted, f"{self.show(middle)}{spread}", "pass" if passed else "**falls short**"]


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def times(value: float) -> str:
    return f"{value:.1f}×"


def plus_milliseconds(value: float) -> str:
    return f"{1000 * value:+.0f} ms"


def plus_seconds(value: float) -> str:
    return f"{value:+.1f} s"


def share(value: float) -> str:
    return f"{value:.2f}"


NOOP, PEER = "of a no-op endpoint of the same app", "against the naive peer"

OVER = "suite tokens/s at 1 client over the same engine called directly"

BARS = (
    Bar(f"zero-shot, 8 clients: requests/s {NOOP}", "zero_shot: rate over no-op", 0.85, percent),
    Bar(f"translation, 8 clients: requests/s {NOOP}", "translate: rate over no-op", 0.85, percent),
    Bar("zero-shot, 1 client: p50 over the no-op's", "zero_shot: p50 over no-op", 0.025, plus_milliseconds, True),
    Bar("translation, 1 client: p50 over the no-op's", "translate: p50 over no-op", 0.025, plus_milliseconds, True),
    Bar(f"sentiment by likelihood, 8 clients: requests/s {PEER}", "sentiment: rate over peer, 8", 5, times),
    Bar(f"few-shot by likelihood, 8 clients: requests/s {PEER}", "few_shot: rate over peer, 8", 5, times),
    Bar(f"greedy generation, 8 clients: tokens/s {PEER}", "greedy: tokens over peer, 8", 10, times),
    Bar(f"sampling with seeds, 8 clients: tokens/s {PEER}", "sampled: tokens over peer, 8", 6, times),
    Bar(f"greedy generation, 1 client: tokens/s {PEER}", "greedy: tokens over peer, 1", 3, times),
    Bar(f"sampling with seeds, 1 client: tokens/s {PEER}", "sampled: tokens over peer, 1", 3, times),
    Bar("time to first token, 1 client, over the no-op", "first token over no-op", 0.150, plus_milliseconds, True),
    Bar("1,000-row CSV, zero-shot: rows/s against the peer in a loop", "csv: zero_shot", 8, times),
    Bar("1,000-row CSV, sentiment: rows/s against the peer in a loop", "csv: sentiment", 8, times),
    Bar("1,000-row CSV, translation: rows/s against the peer in a loop", "csv: translate", 8, times),
    Bar("decode at batch 1: share of the bandwidth ceiling", "decode: share of bandwidth", 0.60, percent),
    Bar(f"{OVER}: 64 tokens by `gradio_client`", "suite over direct, 64", 0.90, percent),
    Bar(f"{OVER}: 64 tokens by plain HTTP", "suite over direct by HTTP, 64", 0.90, percent),
    Bar(f"{OVER}: 256 tokens by `gradio_client`", "suite over direct, 256", 0.90, percent),
    Bar(
        "resident memory over the imports', all text Spaces used, against the naive peer", "memory over peer", 0.5,
        share, True,
    ),
    Bar("start to first page, over a trivial Gradio app's", "page over trivial", 1.0, plus_seconds, True),
    Bar("two busy tabs at once, time against one after the other", "tabs: together over in turn", 1.0, share, True),
)  # fmt: skip

SHOWN = (
    "greedy: tokens over peer, 8",
    "greedy: tokens over peer, 1",
    "csv: sentiment",
    "memory over peer",
    "page over trivial",
)
"""Figures that the README shows too."""

NOTE = (
    "Medians of this run, with the least and the greatest of its rounds; both sides of a ratio were measured in turns. "
    "The remaining bar, int8 against the reference (labels, chrF, ROUGE), is `make eval`'s."
)


def verdicts(figures: Mapping[str, Sequence[float]]) -> str:
    """The table that comes first."""
    return f"### Bars\n\n{rows_of(figures)}\n\n{NOTE}"


def rows_of(figures: Mapping[str, Sequence[float]], shown: Sequence[str] = ()) -> str:
    """The table, or its rows of these figures alone."""
    return table(
        ["what", "bar", "measured", ""], [bar.cells(figures) for bar in BARS if not shown or bar.figure in shown]
    )
