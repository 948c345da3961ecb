"""From what the form holds to a recipe: the shipped one, with each field that differs as a `--set`."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune.data.sources import File
from finetune.recipe import Recipe, read_recipe
from finetune.run.background import keep_upload
from shared.errors import InvalidInput
from shared.settings import Settings

FIELDS = ("epochs", "learning_rate", "batch_size", "max_length")
"""Of `training`, shown in sight."""

OWN_ROWS = {"licence": "other", "limits": "It learned from rows of whoever trained it; nothing is known beyond them."}


@dataclass(frozen=True)
class Form:
    """What the page's fields hold."""

    recipe: str
    name: str = ""
    upload: str | None = None
    folder: str = ""
    """A file, or a folder of folders named by label, on the server."""
    input: str = ""
    target: str = ""
    epochs: float | None = None
    learning_rate: float | None = None
    batch_size: float | None = None
    max_length: float | None = None
    rank: float | None = None
    more: str = ""
    """`key=value` lines."""

    def changes(self, settings: Settings) -> list[str]:
        """What differs from the recipe, as `--set` takes it. Raises `InvalidInput` for rows that are not there."""
        shipped = read_recipe(self.recipe)
        changes = self._rows(settings)
        if self.name.strip() and self.name.strip() != shipped.name:
            changes.append(f"name={self.name.strip()}")
        for field in FIELDS:
            value, before = getattr(self, field), getattr(shipped.training, field)
            if value is not None and value != before:
                changes.append(f"training.{field}={json.dumps(value)}")
        if self.rank is not None and self.rank != getattr(shipped.method, "rank", self.rank):
            changes.append(f"method.rank={json.dumps(self.rank)}")
        return [*changes, *(line.strip() for line in self.more.splitlines() if line.strip())]

    def as_recipe(self, settings: Settings) -> Recipe:
        """Raises `InvalidInput`, which names the key at fault."""
        return read_recipe(self.recipe, self.changes(settings))

    def command(self, settings: Settings) -> str:
        """The same from a terminal."""
        sets = " \\\n  ".join(f"--set {shlex.quote(change)}" for change in self.changes(settings))
        return f"python -m finetune {self.recipe}" + (f" \\\n  {sets}" if sets else "")

    def _rows(self, settings: Settings) -> list[str]:
        if self.upload:
            size = Path(self.upload).stat().st_size
            if size > settings.max_upload:
                raise InvalidInput(
                    f"has {size / 1e6:,.0f} MB, and a page takes {settings.max_upload / 1e6:,.0f} MB at most "
                    "(SUITE_MAX_UPLOAD); put it on the server and name its path",
                    field="upload",
                )
            source: dict[str, str] = {"file": str(keep_upload(Path(self.upload), settings))}
        elif self.folder.strip():
            path = Path(self.folder.strip()).expanduser()
            if not path.is_absolute() or not path.exists():
                raise InvalidInput(
                    "must be the whole path of a file or folder on the machine that serves this page", field="folder"
                )
            source = {"audio_folder" if path.is_dir() else "file": str(path)}
        else:
            source = {}
        columns = {"input": self.input.strip(), "target": self.target.strip()}
        changes = [f"data.{key}={_scalar(value)}" for key, value in columns.items() if value]
        if source:
            about = {**OWN_ROWS, "name": "", "example": ""}
            changes = [
                f"data.source={json.dumps(source, ensure_ascii=False)}",
                f"publishing={json.dumps(about)}",
                *changes,
            ]
        return changes


def columns_of(path: Path) -> list[str]:
    """Names of a table's columns, from its first row. Raises `InvalidInput`."""
    first = next(iter(itertools.islice(File(file=path).rows(), 1)), None)
    if first is None:
        raise InvalidInput("holds no rows under its header", field="file")
    return [str(name) for name in first]


def guess_columns(names: list[str], recipe: Recipe) -> tuple[str, str]:
    """Which column goes in and which should come out: the recipe's names where the table has them, else the usual."""
    given = {name.lower(): name for name in names}
    usual = ("text", "message", "sentence", "review", "article", "dialogue", "question", "prompt", "source", "body")
    wanted = ("label", "category", "class", "topic", "genre", "answer", "reply", "summary", "target", "sentiment")
    first = next((given[n] for n in (recipe.data.input.lower(), *usual) if n in given), names[0])
    rest = [name for name in names if name != first] or [first]
    second = next((given[n] for n in (recipe.data.target.lower(), *wanted) if n in given and given[n] != first), None)
    return first, second or rest[-1]


def name_for(recipe: str, path: Path) -> str:
    """A name for a run on these rows: `topics-tickets`."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:40]
    return f"{recipe}-{stem}" if stem else f"{recipe}-own"


def _scalar(text: str) -> str:
    """As YAML would need it written to be this very text."""
    try:
        as_it_is = yaml.safe_load(text) == text
    except yaml.YAMLError:
        as_it_is = False
    return text if as_it_is else json.dumps(text, ensure_ascii=False)


def fields_of(recipe: Recipe) -> dict[str, Any]:
    """What the form's fields are for this recipe as it is shipped."""
    return {field: getattr(recipe.training, field) for field in FIELDS} | {"rank": getattr(recipe.method, "rank", None)}
