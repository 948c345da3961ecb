"""The fast engines beside the reference: the same rows by both, and whether they agree as far as they must."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.quality import Row, points
from benchmarks.report import table

COLUMNS = ("task", "method", "metric", "n", "fast", "reference", "difference", "same answer", "95 % interval", "floor",
           "seconds, fast", "seconds, reference")  # fmt: skip

SAME_LABEL = 98.0
"""Points: so many of the rows must get the same label from both."""
LEAST_ROWS = 400
MOST_DIFFERENCE = 1.0
"""Points of chrF and ROUGE, either way."""


@dataclass(frozen=True)
class Beside:
    """A row by the fast engine and by the reference. Of a baseline, which has no engine, they are the same."""

    fast: Row
    reference: Row

    @property
    def differences(self) -> tuple[float, ...]:
        return tuple(f - r for f, r in zip(self.fast.values, self.reference.values, strict=True))

    @property
    def same(self) -> list[float]:
        """1.0 for each answer that is the reference's, letter for letter."""
        return [float(f == r) for f, r in zip(self.fast.answers, self.reference.answers, strict=True)]

    @property
    def lengths(self) -> str:
        """Words of a summary, since a longer one has the higher recall."""
        if not self.fast.metric.startswith("ROUGE"):
            return ""
        counts = [sum(len(text.split()) for text in row.answers) / row.n for row in (self.fast, self.reference)]
        return f" ({' and '.join(dict.fromkeys(f'{count:.0f}' for count in counts))} words on average)"

    def cells(self) -> list[str]:
        fast, reference = self.fast, self.reference
        return [
            fast.task,
            f"{fast.method}{self.lengths}",
            fast.metric,
            str(fast.n),
            shown(fast.values),
            shown(reference.values),
            shown(self.differences, "+.1f") if fast.model else "",
            f"{points(self.same):.1f} %" if fast.model else "",
            " / ".join(f"{low:.0f}–{high:.0f}" for low, high in fast.intervals),
            fast.floor,
            *("" if row.seconds is None else f"{row.seconds:.1f}" for row in (fast, reference)),
        ]


def shown(values: Iterable[float], form: str = ".1f") -> str:
    return " / ".join(format(value, form) for value in values)


def beside(fast: Iterable[Row], reference: Iterable[Row]) -> list[Beside]:
    """Row by row. Raises `ValueError` where the two did not do the same things."""
    pairs = [Beside(*both) for both in zip(fast, reference, strict=True)]
    for pair in pairs:
        did = [(row.task, row.method, row.model, row.n) for row in (pair.fast, pair.reference)]
        if did[0] != did[1]:
            raise ValueError(f"{did[0]} stands beside {did[1]}")
    return pairs


def results(pairs: Sequence[Beside]) -> str:
    return table(COLUMNS, [pair.cells() for pair in pairs], left=3)


def verdicts(pairs: Sequence[Beside]) -> str:
    """What int8 must keep to, and whether it does."""
    columns = ("checkpoint", "judged", "engine", "reference", "rows", "bar", "measured", "")
    return table(columns, verdict_rows(pairs), left=4)


def verdict_rows(pairs: Sequence[Beside]) -> Iterator[list[str]]:
    groups: dict[tuple[str, str], list[Beside]] = {}
    for pair in pairs:
        if pair.fast.judged_with:
            groups.setdefault((pair.fast.model, pair.fast.judged_with), []).append(pair)
    for (model, what), group in groups.items():
        engines = [group[0].fast.engine, group[0].reference.engine]
        bar, measured, rows, verdict = (same_labels if group[0].fast.metric == "accuracy" else same_scores)(group)
        if engines[0] == engines[1]:
            verdict = "one engine is both here"
        yield [model, what, *engines, str(rows), bar, measured, verdict]


def same_labels(group: Sequence[Beside]) -> tuple[str, str, int, str]:
    same = [value for pair in group for value in pair.same]
    bar = f"same label ≥ {SAME_LABEL:.0f} % of {LEAST_ROWS} or more"
    if len(same) < LEAST_ROWS:
        return bar, f"{points(same):.1f} %", len(same), "too few rows to say"
    return bar, f"{points(same):.1f} %", len(same), verdict(points(same) >= SAME_LABEL)


def same_scores(group: Sequence[Beside]) -> tuple[str, str, int, str]:
    """The mean over all rows of the group, for every metric of theirs."""
    rows = sum(pair.fast.n for pair in group)
    metrics = zip(*([value * pair.fast.n / rows for value in pair.differences] for pair in group), strict=True)
    differences = [sum(metric) for metric in metrics]
    bar = f"{group[0].fast.metric} within {MOST_DIFFERENCE:.0f} point"
    kept = all(abs(difference) <= MOST_DIFFERENCE for difference in differences)
    return bar, shown(differences, "+.2f"), rows, verdict(kept)


def verdict(kept: bool) -> str:
    return "meets" if kept else "**misses**"
