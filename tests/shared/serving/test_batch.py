"""A CSV in, the same CSV with answers out, whatever programs and people write into CSVs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.checkpoints.adapters import Adapters
from shared.checkpoints.catalog import Catalog
from shared.engines.protocols import NoCache
from shared.errors import Cancelled, InvalidInput
from shared.events import Done, Event, Partial, Running
from shared.fetching.hub_files import HubFiles
from shared.fetching.hub_link import HubLink
from shared.scheduling.admission import Admission
from shared.scheduling.cache import ModelCache
from shared.scheduling.lane import Lane
from shared.serving import batch as batch_module
from shared.serving.batch import Batch, BatchResult, Table, batch_task, from_lines, parse, parse_settings, read_file
from shared.serving.context import Context
from shared.serving.endpoint import Endpoint, Rows, collect
from shared.serving.lease import Lease
from shared.serving.requests import Request, Text
from shared.serving.runtime import Runtime
from shared.serving.traffic import Traffic
from shared.settings import Settings

LIMITS = Settings(max_rows=100, max_upload=10_000, max_chars=200)


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_programs_write_csv_in_many_ways(delimiter: str, line_end: str, bom: str) -> None:
    lines = [["id", "text"], ["1", '"good, really; yes"'], ["2", '"two\nlines"'], ["3", '"said ""no"""']]
    given = bom + line_end.join(delimiter.join(cells) for cells in lines) + line_end
    table = parse(given, "text", LIMITS)
    assert table.columns == ["id", "text"]
    assert [row["text"] for row in table.rows] == ["good, really; yes", "two\nlines", 'said "no"']
    assert [row["id"] for row in table.rows] == ["1", "2", "3"]


def test_blanks_around_column_names_and_empty_lines_are_ignored() -> None:
    table = parse("\n\nid , text \n1,good\n\n2,bad\n\n", "text", LIMITS)
    assert table.rows == [{"id": "1", "text": "good"}, {"id": "2", "text": "bad"}]


def test_a_row_with_too_few_cells_is_filled_up() -> None:
    assert parse("text,note\nhello", "text", LIMITS).rows == [{"text": "hello", "note": ""}]


def test_a_row_with_too_many_cells_is_never_cut_silently() -> None:
    """`Hello, world` without quotes: answering `Hello` alone would be a wrong answer to another text."""
    with pytest.raises(InvalidInput, match="3") as caught:  # the line
        parse("text\nfine\nHello, world\n", "text", LIMITS)
    assert caught.value.field == "file"


def test_two_columns_of_one_name_are_refused_since_one_would_be_lost() -> None:
    with pytest.raises(InvalidInput, match="note") as caught:
        parse("text,note,note\nhello,first,second\n", "text", LIMITS)
    assert caught.value.field == "file"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("\ufeff", "is empty"),
        ("text", "a header line and no rows"),
        ("text\n", "a header line and no rows"),
        ("I love it\nI hate it\n", "no column 'text'. Its first line is read as the header and names: I love it"),
        ("Text,label\nx,y\n", "no column 'text'"),
        ("text\n" + "x\n" * 101, "more than 100 rows"),
        ("text\n" + "x" * 200_000, "cannot be read as CSV"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(given: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(given, "text", LIMITS)
    assert caught.value.field == "file"
    assert said in caught.value.message


@given(
    header=st.sampled_from(["", "text\n", "a;text\n", "text,a,\n"]),
    body=st.text(st.one_of(st.sampled_from('",;\t\r\n'), st.characters()), max_size=60),
)
def test_parsing_raises_nothing_but_invalid_input(header: str, body: str) -> None:
    try:
        table = parse(header + body, "text", LIMITS)
    except InvalidInput:
        return
    assert table.rows
    assert all(set(row) == set(table.columns) for row in table.rows)


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=10))
def test_a_table_written_and_read_is_the_same(rows: list[tuple[str, str]]) -> None:
    table = Table(["text", "other"], [{"text": text, "other": other} for text, other in rows])
    assert parse(table.csv(), "text", LIMITS) == table


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_in_unicode_are_read(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("text\nçafé 🙂\n".encode(encoding))
    assert parse(read_file(file, LIMITS), "text", LIMITS).rows == [{"text": "çafé 🙂"}]


@pytest.mark.parametrize(
    "content", ["text\ncafé\n".encode("latin-1"), "text\né\n".encode("utf-16")[:-1], b"\xff\xfe\x00"]
)
def test_other_encodings_are_refused_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match="save it as CSV UTF-8") as caught:
        read_file(file, LIMITS)
    assert caught.value.field == "file"


def test_the_first_bad_byte_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"text\ncaf\xe9\n")
    with pytest.raises(InvalidInput, match="byte 9 is 0xe9"):
        read_file(file, LIMITS)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"x" * 10_001)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(InvalidInput, match="10,001 bytes; at most 10,000"):
        read_file(file, LIMITS)


def test_pasted_lines_become_rows() -> None:
    given = '  first, with comma \n\n"quoted"\r\nthird\n'
    assert parse(from_lines(given, "text"), "text", LIMITS).rows == [
        {"text": "first, with comma"},
        {"text": '"quoted"'},
        {"text": "third"},
    ]


def test_no_lines_are_refused() -> None:
    with pytest.raises(InvalidInput, match="is empty") as caught:
        from_lines(" \n\t\n", "text")
    assert caught.value.field == "lines"


@pytest.mark.parametrize(("given", "expected"), [('{"a": 1}', {"a": 1}), ({"a": 1}, {"a": 1}), ("", {}), (None, {})])
def test_settings_come_as_json_or_as_its_text(given: object, expected: dict[str, int]) -> None:
    assert parse_settings(given) == expected


@pytest.mark.parametrize("given", ["{", "[1]", "3", [1], 3])
def test_other_settings_are_refused_by_name(given: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_settings(given)
    assert caught.value.field == "settings"


# -- answering -------------------------------------------------------------------------------------


class Shout(Request):
    text: Text
    mark: str = "!"
    model: str = ""


class Loud:
    def __init__(self, text: str, names: Sequence[str] = ("label",)) -> None:
        self.text, self.names = text, names

    def outputs(self) -> tuple[Any, ...]:
        return (self.text,)

    def row(self) -> dict[str, Any]:
        return dict.fromkeys(self.names, self.text)


class Counting:
    """Answers rows; refuses those that say `too long for the model`; notes how many it was given at a time."""

    def __init__(self, names: Sequence[str] = ("label",)) -> None:
        self.names, self.given = names, []

    def __call__(self, requests: Sequence[Shout], lease: Lease) -> Iterable[Loud]:
        self.given.append(len(requests))
        if any("too long for the model" in request.text for request in requests):
            raise InvalidInput("does not fit the context window", field="text")
        return [Loud(request.text.upper() + request.mark, self.names) for request in requests]


def shout(request: Shout, context: Context) -> Iterator[Event]:
    raise NotImplementedError
    yield


class FakeEngine(NoCache):
    name, nbytes = "fake", 1


@pytest.fixture
def context() -> Iterator[Context]:
    """A visitor of a runtime whose only engine is a fake one."""
    cache = ModelCache(10, lambda checkpoint, progress: FakeEngine(), lambda checkpoint: 1)
    hub = HubLink("embedded")
    files = HubFiles(LIMITS, hub, cache.refuse_if_too_large)
    catalog = Catalog.read()
    adapters = Adapters(LIMITS, catalog)
    runtime = Runtime(LIMITS, catalog, cache, Lane(1), Admission(1, 1), hub, files, adapters)
    yield Context(runtime)
    assert cache.report()["checkpoints"] == [] or cache.report()["checkpoints"][0]["borrows"] == 0
    assert runtime.admission.report() == {"running": 0, "queued": 0}
    runtime.lane.close()


def batch_over(answer: Counting) -> Endpoint:
    rows = Rows(lambda request, context: context.borrow(request.model, "summarization"), answer)
    task = batch_task([Endpoint(shout, Shout, {"text": str}, rows), Endpoint(lambda r, c: iter(()), Shout, {})])
    return Endpoint(task, Batch, {"table": str})


def answer_all(
    csv_text: str, context: Context, answer: Counting | None = None, **values: Any
) -> tuple[BatchResult, list[dict[str, str]]]:
    endpoint = batch_over(answer or Counting())
    done = collect(endpoint.run({"csv_text": csv_text, "task": "shout", **values}, context, Traffic()))
    return done.result, list(csv.DictReader(io.StringIO(done.result.table.csv())))


def test_answers_stand_beside_the_rows(context: Context) -> None:
    result, rows = answer_all("id,text\n7,hey\n8,you\n", context, settings={"mark": "?"})
    assert rows == [{"id": "7", "text": "hey", "label": "HEY?"}, {"id": "8", "text": "you", "label": "YOU?"}]
    assert (result.added, result.failed) == (["label"], 0)


def test_another_column_can_hold_the_text(context: Context) -> None:
    _, rows = answer_all("text,comment\nno,yes\n", context, column="comment")
    assert rows == [{"text": "no", "comment": "yes", "label": "YES!"}]


def test_a_row_that_cannot_be_answered_says_why_and_the_others_are_answered(context: Context) -> None:
    long = "x" * 201
    result, rows = answer_all(f'id,text\n1,good\n2," "\n3,{long}\n4,too long for the model\n5,fine\n', context)
    assert [row["label"] for row in rows] == ["GOOD!", "", "", "", "FINE!"]
    assert [row["error"][:20] for row in rows] == [
        "",
        "is empty; type or pa",
        "is 201 characters lo",
        "does not fit the con",
        "",
    ]
    assert result.failed == 3


def test_a_table_of_nothing_but_bad_rows_comes_back_with_its_errors(context: Context) -> None:
    result, rows = answer_all('id,text\n1,""\n2," "\n', context)
    assert result.failed == 2
    assert all("is empty" in row["error"] for row in rows)


@pytest.mark.parametrize(
    "columns",
    [["text", "label"], ["text", "label", "label_predicted"], ["text", "error"], ["text", "label", "error"]],
)
def test_new_columns_never_overwrite_old_ones(context: Context, columns: list[str]) -> None:
    old = [f"old {name}" for name in columns[1:]]
    given = ",".join(columns) + "\n" + ",".join(["hey", *old]) + "\n" + ",".join([" ", *old]) + "\n"
    result, rows = answer_all(given, context)
    names = result.table.columns
    assert len(names) == len(set(names))
    assert names[: len(columns)] == columns
    assert [[row[name] for name in columns[1:]] for row in rows] == [old, old]
    first, second = ({row[name] for name in names[len(columns) :]} for row in rows)
    assert "HEY!" in first
    assert any("is empty" in cell for cell in second)


def test_rows_are_answered_some_at_a_time_and_the_table_grows(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "ROWS_PER_STEP", 4)
    counting = Counting()
    values = {"csv_text": "text\n" + "hey\n" * 10, "task": "shout"}
    progress, sizes = [], []
    for event in batch_over(counting).run(values, context, Traffic()):
        if isinstance(event, Running):
            progress.append((event.done, event.total))
        elif isinstance(event, (Partial, Done)):
            sizes.append(len(cast(BatchResult, event.result).table.rows))
    assert counting.given == [4, 4, 2]
    assert progress == [(0, 10), (4, 10), (8, 10)]
    assert sizes == [4, 8, 10, 10]


def test_a_cancelled_batch_stops_before_the_next_rows(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "ROWS_PER_STEP", 1)
    counting = Counting()
    events = batch_over(counting).run({"csv_text": "text\na\nb\nc\n", "task": "shout"}, context, Traffic())
    while not isinstance(next(events), Partial):
        continue
    context.cancel.set()
    with pytest.raises(Cancelled):
        next(events)
    assert counting.given == [1]


@pytest.mark.parametrize(
    ("values", "field", "said"),
    [
        ({"task": "whisper"}, "task", "is none of shout"),
        ({"settings": {"loud": True}}, "loud", "is not an input here"),
        ({"settings": {"mark": 3}}, "mark", "string"),
        ({"settings": {"model": "nobody"}}, "model", "no checkpoint of this name"),
        ({"column": "comment"}, "file", "no column 'comment'"),
        ({"csv_text": "text\n" + "x" * 10_001}, "csv_text", "larger than 10,000"),
        ({"csv_text": ""}, "file", "is empty"),
    ],
)
def test_wrong_settings_are_refused_once_and_first(
    context: Context, values: dict[str, Any], field: str, said: str
) -> None:
    counting = Counting()
    with pytest.raises(Exception, match=said) as caught:
        answer_all(**{"csv_text": "text\nhey\n", "context": context, "answer": counting, **values})
    assert cast(InvalidInput, caught.value).field == field
    assert counting.given == []
