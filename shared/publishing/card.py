"""The README.md of an assembled Space: front matter that the Hub reads, and the text that people read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from shared.checkpoints.catalog import Checkpoint, HubSource
from shared.serving.space import Space

SHORT = 60
"""Characters that the Hub shows of a short description."""

SUITE_CARD = {
    "title": "Foundation Model Demo Suite",
    "emoji": "🧭",
    "colorFrom": "green",
    "colorTo": "indigo",
    "python_version": "3.11",
    "license": "apache-2.0",
    "short_description": "Foundation models to try, with what they did and cost",
}

ORDER = (
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "license"),
    *("short_description", "thumbnail", "models", "preload_from_hub", "tags"),
)
"""Of the front matter; what else a card has follows."""


def card(
    metadata: dict[str, Any],
    body: str,
    checkpoints: Sequence[Checkpoint],
    *,
    sdk_version: str,
    preload: Sequence[str] = (),
    thumbnail: str = "",
    tags: Sequence[str] = (),
) -> str:
    """README.md. `metadata` is what the Space's own card says; what is known better here replaces it."""
    repos = [c.source.repo for c in checkpoints if isinstance(c.source, HubSource)]
    known: dict[str, Any] = {
        **metadata,
        "sdk": "gradio",
        "sdk_version": sdk_version,
        "app_file": "app.py",
        "thumbnail": thumbnail,
        "models": sorted(set(repos)),
        "preload_from_hub": list(preload),
        "tags": list(dict.fromkeys([*metadata.get("tags", ()), *tags])),
    }
    ordered = {name: known[name] for name in (*ORDER, *(n for n in known if n not in ORDER)) if known.get(name)}
    front = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{body.strip()}\n\n{listed(checkpoints)}"


def listed(checkpoints: Sequence[Checkpoint]) -> str:
    """What a Space can use: those of the Hub are what it uses unless `SUITE_PROFILE` says otherwise."""
    parts = []
    for title, there in (("Checkpoints", True), ("In the profiles `auto` and `embedded` also", False)):
        some = [c for c in checkpoints if isinstance(c.source, HubSource) == there]
        lines = [f"- {c.id} ({c.licence})" + (", the default" if there and c.default_for else "") for c in some]
        if lines:
            parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def split(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of a card."""
    found = re.match(r"---\n(.*?\n)---\n(.*)", text, re.S)
    if found is None:
        return {}, text
    return yaml.safe_load(found[1]), found[2]


def suite_body(spaces: Sequence[Space]) -> str:
    listed = "\n".join(f"- **{space.title}**: {space.summary}" for space in spaces)
    return f"# {SUITE_CARD['title']}\n\nAll demos on one page, over one model cache.\n\n{listed}\n"


def short_description(sentence: str) -> str:
    """The sentence, or as many of its clauses as the Hub shows, or as many words."""
    sentence = sentence.strip().rstrip(".")
    if len(sentence) <= SHORT:
        return sentence
    ends = [m.start() for m in re.finditer(r",? and |[,:;] ", sentence) if m.start() <= SHORT]
    if ends:
        return sentence[: ends[-1]]
    return sentence[:SHORT].rpartition(" ")[0] + "…" if len(sentence[:SHORT].split()) > 1 else sentence[:SHORT]
