"""Rows → training, validation and test rows, of which none is in another.

What is empty or a repetition is left out and counted. What stays is put into groups: rows of one `data.group`, and
near-duplicates, which real data is full of (an article printed twice with one word changed). A group goes into one part
as a whole, or else the model would be measured on what it has seen.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.data.settings import Data
from shared.errors import InvalidInput
from shared.serving.requests import NO_TEXT

SHINGLE = 8
"""Words in a row by which near-duplicates are found (Broder 1997)."""
ALIKE = 0.5
"""Share of the shorter text's shingles that the other holds too."""
COMMON = 20
"""A shingle in more rows than this is boilerplate and joins nothing."""


@dataclass(frozen=True)
class Item:
    """One row: what goes in, and what should come out."""

    input: str
    target: str
    group: str = ""


@dataclass
class Parts:
    """The rows of a run, and what was left out."""

    train: list[Item]
    validation: list[Item]
    test: list[Item]
    counts: dict[str, int] = field(default_factory=dict)
    """`read`, `empty`, `repeated`, `contradictory`, `drawn`, `groups`."""

    @property
    def labels(self) -> list[str]:
        """Of classification: every label there is in training, sorted."""
        return sorted({item.target for item in self.train})


def split(rows: Iterable[dict[str, Any]], data: Data, *, generates: bool) -> Parts:
    """Raises `InvalidInput` where columns are missing, or too little is left to train and to measure."""
    counts: Counter[str] = Counter()
    items = draw(clean(rows, data, counts, generates=generates), data.limit, data.split.seed)
    counts["drawn"] = len(items)
    groups = grouped(items, audio=data.input == "audio")
    counts["groups"] = len(groups)
    shares = {"test": data.split.test, "validation": data.split.validation}
    wanted = {name: round(share * len(items)) for name, share in shares.items()}
    parts: dict[str, list[Item]] = {"test": [], "validation": [], "train": []}
    random.Random(data.split.seed).shuffle(groups)
    for group in groups:
        name = next((n for n in wanted if len(parts[n]) + len(group) <= wanted[n]), "train")
        parts[name] += [items[position] for position in group]
    found = Parts(parts["train"], parts["validation"], parts["test"], dict(counts))
    _refuse_too_little(found, generates=generates)
    return found


def clean(rows: Iterable[dict[str, Any]], data: Data, counts: Counter[str], *, generates: bool) -> Iterable[Item]:
    """Rows with both columns filled, each input once (each pair, where texts are generated)."""
    seen: dict[int, int] = {}
    for row in rows:
        counts["read"] += 1
        try:
            source, target = _text(cell(row, data.input)), _text(cell(row, data.target))
            group = _text(cell(row, data.group)) if data.group else ""
        except KeyError as error:
            there = ", ".join(map(str, row)) or "none"
            raise InvalidInput(
                f"row {counts['read']} has no column {error.args[0]!r}; it has {there}", field="data"
            ) from None
        if not source or not target:
            counts["empty"] += 1
            continue
        key, answer = _hashed(source), _hashed(target)
        if generates:
            key = (3 * key + answer) % 2**64  # not the same for a pair and its reverse, nor for all that are copies
        if key in seen:
            counts["repeated" if seen[key] == answer else "contradictory"] += 1
            continue
        seen[key] = answer
        yield Item(source, target, group)


def cell(row: dict[str, Any], column: str) -> Any:
    """The column's value; `translation.en` is that of `en` in the column `translation`. Raises `KeyError`."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, dict) or part not in value:
            raise KeyError(column)
        value = value[part]
    return value


def draw(items: Iterable[Item], limit: int, seed: int) -> list[Item]:
    """At most `limit` of them, each as likely as any other (Vitter's reservoir)."""
    chance = random.Random(seed)
    kept: list[Item] = []
    for position, item in enumerate(items):
        if position < limit:
            kept.append(item)
        elif (place := chance.randrange(position + 1)) < limit:
            kept[place] = item
    return kept


def grouped(items: Sequence[Item], *, audio: bool = False) -> list[list[int]]:
    """Positions of the items, put together where they must not part."""
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(pairs: Iterable[tuple[int, int]]) -> None:
        for one, other in pairs:
            parent[root(one)] = root(other)

    named: dict[str, int] = {}
    join((named.setdefault(item.group, i), i) for i, item in enumerate(items) if item.group)
    if not audio:
        join(near_duplicates([item.input for item in items]))
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(items)):
        groups[root(i)].append(i)
    return list(groups.values())


def near_duplicates(texts: Sequence[str]) -> Iterable[tuple[int, int]]:
    """Pairs of texts of which one holds at least half of the other's shingles; case and punctuation do not count."""
    shingled = [_shingles(text) for text in texts]
    holders: dict[int, list[int]] = defaultdict(list)
    for i, shingles in enumerate(shingled):
        for shingle in shingles:
            holders[shingle].append(i)
    shared: Counter[tuple[int, int]] = Counter()
    for together in holders.values():
        if 1 < len(together) <= COMMON:
            shared.update((a, b) for k, a in enumerate(together) for b in together[k + 1 :])
    for (a, b), count in shared.items():
        if count >= ALIKE * min(len(shingled[a]), len(shingled[b])):
            yield a, b


def _shingles(text: str) -> set[int]:
    words = re.findall(r"\w+", text.lower())
    width = min(SHINGLE, max(len(words), 1))
    return {hash(tuple(words[i : i + width])) for i in range(len(words) - width + 1)}


def leaked(train: Iterable[Sequence[int]], held_out: Iterable[Sequence[int]]) -> int:
    """How many held-out rows are in training as the model sees them: the same tokens after cutting."""
    known = {tuple(tokens) for tokens in train}
    return sum(tuple(tokens) in known for tokens in held_out)


def _refuse_too_little(parts: Parts, *, generates: bool) -> None:
    left_out = ", ".join(f"{count:,} {what}" for what, count in parts.counts.items())
    if not parts.counts.get("read"):
        raise InvalidInput("the source holds no rows", field="data")
    if not parts.train or not parts.test:
        raise InvalidInput(
            f"too few rows are left to train on some and to measure on others ({left_out})", field="data"
        )
    if generates:
        return
    if len(parts.labels) < 2:
        raise InvalidInput(
            f"there is one label only, {parts.labels[0]!r}, so there is nothing to tell apart ({left_out})",
            field="data",
        )
    unseen = sorted({item.target for item in [*parts.validation, *parts.test]} - set(parts.labels))
    if unseen:
        # A model that never saw a label cannot say it. Such rows stay in the test: they count as wrong, and it is said.
        parts.counts["of labels unseen in training"] = sum(item.target in unseen for item in parts.test)
        parts.validation = [item for item in parts.validation if item.target not in unseen]


def _text(value: Any) -> str:
    """Without control characters and halves of characters, which the Spaces refuse and files of people hold."""
    return "" if value is None else NO_TEXT.sub("", str(value)).strip()


def _hashed(text: str) -> int:
    """The same for texts that differ in case and blanks alone; the same in every process."""
    plain = " ".join(text.lower().split())
    return int.from_bytes(hashlib.blake2b(plain.encode("utf-8", errors="replace"), digest_size=8).digest(), "big")


def sizes(parts: Parts) -> dict[str, int]:
    return {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test), **parts.counts}
