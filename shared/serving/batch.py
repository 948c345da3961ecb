"""Many texts at once: a CSV in, the same CSV with new columns out."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from shared.errors import InvalidInput
from shared.events import Done, Event, Partial, Running
from shared.serving.context import Context
from shared.serving.endpoint import Endpoint
from shared.serving.lease import Lease
from shared.serving.requests import Request, validate
from shared.settings import Settings

ROWS_PER_STEP = 16
"""Rows answered together: enough to share forward passes, few enough to show progress and stop soon."""


@dataclass
class Table:
    """Column names and rows of text."""

    columns: list[str]
    rows: list[dict[str, str]]

    def csv(self) -> str:
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return out.getvalue()


@dataclass
class BatchResult:
    """The table so far; `added` are the new columns."""

    table: Table
    added: list[str] = field(default_factory=list)
    failed: int = 0

    def outputs(self) -> tuple[Any, ...]:
        return (self.table.csv(),)


class Batch(Request):
    """`csv_text` is the content of a CSV with a header line; `settings` are the endpoint's inputs but the text."""

    csv_text: str
    task: str = "zero_shot"
    column: str = "text"
    settings: dict[str, Any] = Field(default_factory=dict)

    @field_validator("csv_text")
    @classmethod
    def _bounded(cls, value: str, info: ValidationInfo) -> str:
        limit = ((info.context or {}).get("settings") or Settings()).max_upload
        if len(value) > limit:
            raise ValueError(f"is larger than {limit:,} characters (SUITE_MAX_UPLOAD)")
        return value


def batch_task(endpoints: Sequence[Endpoint]) -> Any:
    """The task function `batch` over these endpoints."""
    able = {endpoint.name: endpoint for endpoint in endpoints if endpoint.rows}

    def batch(request: Batch, context: Context) -> Iterator[Event]:
        """Answers every row of a CSV and adds the answers as columns."""
        endpoint = able.get(request.task)
        if endpoint is None:
            raise InvalidInput(f"is none of {', '.join(able)}", field="task")
        yield from answered(endpoint, request, context)

    return batch


def answered(endpoint: Endpoint, batch: Batch, context: Context) -> Iterator[Event]:
    """Yields the table as it grows. A row that cannot be answered says why in its `error` column."""
    assert endpoint.rows is not None
    table = parse(batch.csv_text, batch.column, context.settings)
    text_field = next(iter(endpoint.request.model_fields))
    if text_field in batch.settings:
        raise InvalidInput(
            f"must not hold {text_field!r}: that is what the column {batch.column!r} gives", field="settings"
        )
    # The settings are wrong for every row or for none, so they are checked once, and first.
    sample = validate(endpoint.request, {**batch.settings, text_field: "text"}, context.settings)
    requests: list[Request | InvalidInput] = []
    for row in table.rows:
        try:
            requests.append(
                validate(endpoint.request, {**batch.settings, text_field: row[batch.column]}, context.settings)
            )
        except InvalidInput as error:
            requests.append(error)
    result = BatchResult(Table(list(table.columns), []))
    with (yield from endpoint.rows.borrow(sample, context)) as lease:
        for start in range(0, len(requests), ROWS_PER_STEP):
            context.check()
            yield Running("answering rows", start, len(requests))
            some = requests[start : start + ROWS_PER_STEP]
            try:
                answers = (
                    iter(endpoint.rows.answer([r for r in some if isinstance(r, Request)], lease))
                    if any(isinstance(r, Request) for r in some)
                    else iter(())
                )
                columns = [{"error": r.message} if isinstance(r, InvalidInput) else next(answers).row() for r in some]
            except InvalidInput as error:
                if error.field != text_field:
                    raise  # the settings are at fault, for this row and all others
                columns = [_alone(endpoint, r, lease) for r in some]
            for row, new in zip(table.rows[start:], columns, strict=False):
                result.added += [name for name in new if name not in result.added]
                result.failed += "error" in new
                result.table.rows.append({**row, **{_free(name, table.columns): str(v) for name, v in new.items()}})
            result.table.columns = [*table.columns, *(_free(name, table.columns) for name in result.added)]
            yield Partial(result)
        yield Done(result, lease.run_info())


def _alone(endpoint: Endpoint, request: Request | InvalidInput, lease: Lease) -> dict[str, Any]:
    """One row's columns when its batch held one that cannot be answered (too long for the model, say)."""
    assert endpoint.rows is not None
    if isinstance(request, InvalidInput):
        return {"error": request.message}
    try:
        return next(iter(endpoint.rows.answer([request], lease))).row()
    except InvalidInput as error:
        return {"error": error.message}


def _free(name: str, taken: Sequence[str]) -> str:
    """The column's name, or another where the file has one of that name."""
    while name in taken:
        name += "_predicted"
    return name


def parse(text: str, column: str, settings: Settings) -> Table:
    """A CSV with a header line. The delimiter (comma, semicolon or tab) is detected."""
    lines = text.removeprefix("\ufeff").strip("\n")
    if not lines.strip():
        raise InvalidInput("is empty; give it a header line and at least one row", field="file")
    header_line = lines.partition("\n")[0]
    delimiter = max(",;\t", key=header_line.count)
    try:
        reader = csv.DictReader(io.StringIO(lines), delimiter=delimiter)
        columns = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        if column not in columns:
            raise InvalidInput(
                f"has no column {column!r}. Its first line is read as the header and names: "
                f"{', '.join(columns)[:200]}. Add a header line, or say which column holds the text",
                field="file",
            )
        repeated = {name for name in columns if name and columns.count(name) > 1}
        if repeated:
            raise InvalidInput(f"has more than one column {sorted(repeated)[0]!r}", field="file")
        rows = []
        for row in reader:
            if None in row:
                raise InvalidInput(
                    f"has more cells in line {reader.line_num} than names in its header; put quotes around texts that "
                    f"hold {delimiter!r}",
                    field="file",
                )
            if len(rows) >= settings.max_rows:
                raise InvalidInput(f"has more than {settings.max_rows:,} rows (SUITE_MAX_ROWS); split it", field="file")
            rows.append({name: (row.get(name) or "") for name in columns})
    except csv.Error as error:
        raise InvalidInput(f"cannot be read as CSV: {error}", field="file") from None
    if not rows:
        raise InvalidInput("has a header line and no rows", field="file")
    return Table(columns, rows)


def read_file(path: str | Path, settings: Settings) -> str:
    """The text of an uploaded CSV. Raises `InvalidInput` when it is too large or not UTF-8."""
    file = Path(path)
    size = file.stat().st_size
    if size > settings.max_upload:
        raise InvalidInput(
            f"is {size:,} bytes; at most {settings.max_upload:,} are accepted (SUITE_MAX_UPLOAD)", field="file"
        )
    data = file.read_bytes()
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"is not UTF-8 text (byte {error.start + 1} is {data[error.start]:#04x}); save it as CSV UTF-8",
            field="file",
        ) from None


def from_lines(text: str, column: str) -> str:
    """Pasted lines as a CSV of one column."""
    rows = [{column: line.strip()} for line in text.splitlines() if line.strip()]
    if not rows:
        raise InvalidInput("is empty; paste one text a line, or upload a CSV", field="lines")
    return Table([column], rows).csv()


def parse_settings(value: Any) -> dict[str, Any]:
    """The `settings` of a batch: a JSON object, or its text."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"is not JSON: {error}", field="settings") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput('must be an object such as {"candidate_labels": "a, b"}', field="settings")
    return value


@contextmanager
def written(result: BatchResult, name: str) -> Iterator[str]:
    """The table as a file, until Gradio has made its own copy. It begins with a byte order mark, for Excel."""
    with tempfile.TemporaryDirectory(prefix="batch-") as folder:
        path = Path(folder) / f"{name}.csv"
        path.write_text(result.table.csv(), encoding="utf-8-sig")
        yield str(path)
