"""What the benchmark concludes from what it measured; measuring is `make bench`'s."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError

with patch.dict(os.environ):  # a benchmark sets variables for itself, and other tests must not see them
    from benchmarks.bars import BARS, SHOWN, Bar, percent, rows_of, verdicts
    from benchmarks.engines import agreeing
    from benchmarks.load import Burst, together
    from benchmarks.plain_http import last_data
    from benchmarks.report import write_section
    from benchmarks.soak import Ended, Soak, own_account, said
    from benchmarks.soak_client import ANSWERED, FAILED, LEFT, LOST, REFUSED, Asked, Refused, outcome_of, sent_events
    from benchmarks.throughput import Side, bar_figures, paired, rate
    from benchmarks.worker import Absent, Worker
    from benchmarks.workload import cases, new_tokens, openings


def test_the_median_round_decides_and_the_spread_is_shown() -> None:
    bar = Bar("share", "figure", 0.85, percent)
    assert bar.cells({"figure": [0.5, 0.9, 0.95]})[2:] == ["90 % (50 % to 95 %)", "pass"]
    assert bar.cells({"figure": [0.84]})[2:] == ["84 %", "**falls short**"]
    at_most = Bar("share", "figure", 0.85, percent, at_most=True)
    assert at_most.cells({"figure": [0.84]})[1:] == ["≤ 85 %", "84 %", "pass"]
    assert at_most.cells({"figure": [0.86]})[3] == "**falls short**"


def test_a_bar_that_was_not_measured_is_no_pass() -> None:
    table = verdicts({})
    assert table.count("not measured in this run") == len(BARS)
    assert "pass" not in table


def test_the_readme_shows_some_of_the_bars() -> None:
    assert len(rows_of({}, SHOWN).splitlines()) == 2 + len(SHOWN)


def side(calls: int, tokens: int, latency: float = 0.1) -> Side:
    """One round of a second."""
    answers = {number: ("text", {"new_tokens": tokens}) for number in range(calls)}
    return Side([Burst([latency] * calls, answers, [], 1.0)])


@pytest.mark.parametrize("count", [1, 8])
def test_every_figure_of_the_load_has_its_bar(count: int) -> None:
    known = {bar.figure for bar in BARS}
    found = set()
    for case in cases():
        sides = {name: side(4, 8) for name in ("suite", "peer", "noop")}
        figures = bar_figures(case, count, sides)
        if case.key:
            found |= {name for name in figures if name in known}
        else:
            assert figures == {}
    wanted = {
        1: {"zero_shot: p50 over no-op", "translate: p50 over no-op", "greedy: tokens over peer, 1",
            "sampled: tokens over peer, 1"},
        8: {"zero_shot: rate over no-op", "translate: rate over no-op", "sentiment: rate over peer, 8",
            "few_shot: rate over peer, 8", "greedy: tokens over peer, 8", "sampled: tokens over peer, 8"},
    }  # fmt: skip
    assert found == wanted[count]


def test_tokens_count_where_tokens_are_the_measure() -> None:
    assert paired(side(4, 30), side(8, 5), rate(tokens=True)) == [3.0]
    assert paired(side(4, 30), side(8, 5), rate(tokens=False)) == [0.5]
    assert paired(side(4, 30), Side([Burst()]), rate(tokens=False)) == []


def test_new_tokens_of_either_server() -> None:
    assert new_tokens(("text", {"new_tokens": 7})) == 7
    assert new_tokens(("text", 7)) == 7
    assert new_tokens({"label": "a"}) == 0


def test_no_text_is_asked_twice() -> None:
    assert len({openings(number) for number in range(200)}) == 200
    for case in cases():
        if case.api_name != "/models":
            asked = [json.dumps(case.inputs(number), sort_keys=True) for number in range(100)]
            assert len(set(asked)) == 100, case.title


def test_a_burst_is_bounded_and_keeps_its_failures() -> None:
    def fails_on_three(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    found = together([fails_on_three, fails_on_three], each=3, seconds=60.0, first=1)
    assert sorted(found.answers) == [1, 2, 4, 5, 6]
    assert found.failures == ["ValueError: three"]
    assert len(together([lambda number: number], each=50, seconds=0.0).answers) == 1


def test_the_event_stream_of_a_plain_call() -> None:
    stream = (
        'event: generating\ndata: ["a", {}]\n\nevent: heartbeat\ndata: null\n\nevent: complete\ndata: ["ab", {}]\n\n'
    )
    assert last_data(stream) == ["ab", {}]
    with pytest.raises(RuntimeError, match="the call failed"):
        last_data('event: error\ndata: "too long"\n\n')
    with pytest.raises(RuntimeError, match="without a result"):
        last_data("event: heartbeat\ndata: null\n\n")


def test_how_far_two_texts_agree() -> None:
    assert agreeing([1, 2, 3, 4], [1, 2, 9, 4]) == 2
    assert agreeing([1, 2, 3, 4], [1, 2]) == 2
    assert agreeing([], [1]) == 0


def test_an_engine_that_is_not_there_says_so() -> None:
    with pytest.raises(Absent, match="not installed"), Worker("no_such_module", "engine"):
        pass


def test_a_worker_answers_and_ends() -> None:
    with Worker("memory", "memory") as worker:
        assert worker.do("stream", threads=1) > 1e8
        process = worker._process
    assert process.poll() is not None


def test_a_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    file.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n", encoding="utf-8")
    write_section(file, "bench", "new")
    assert file.read_text(encoding="utf-8") == "before\n<!-- bench -->\nnew\n<!-- /bench -->\nafter\n"


# -- the soak ------------------------------------------------------------------------------------------

STREAM = ["event: running", 'data: {"done": 0}', "", ":", "", "event: delta", 'data: {"completion": "a"}', ""]


def asked(stays: float | None = None, patience: float = 60.0) -> Asked:
    return Asked("/generate", {}, stays, time.monotonic() + patience)


def test_a_stream_is_followed_to_its_answer() -> None:
    lines = [*STREAM, "event: done", 'data: {"completion": "ab"}', ""]
    assert [kind for kind, _ in sent_events(iter(lines))] == ["running", "", "delta", "done"]
    assert asked().read(sent_events(iter(lines)), "done") == ANSWERED
    with pytest.raises(RuntimeError, match="without a result"):
        asked().read(sent_events(iter(STREAM)), "done")


def test_who_leaves_does_so_at_the_next_word_even_a_heartbeat() -> None:
    assert asked(stays=-1.0).read(sent_events(iter([":", *STREAM])), "done") == LEFT
    with pytest.raises(TimeoutError):
        asked(patience=-1.0).read(sent_events(iter(STREAM)), "done")


def test_an_error_with_a_reason_is_a_refusal_and_any_other_is_not() -> None:
    full = ["event: error", 'data: {"error": "40 requests are waiting already; try again in a minute"}']
    with pytest.raises(Refused):
        asked().read(sent_events(iter(full)), "done")
    with pytest.raises(RuntimeError, match="something failed here"):
        asked().read(sent_events(iter(["event: error", 'data: {"error": "something failed here"}'])), "done")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Refused("429"), REFUSED),
        (QueueError("Queue is full! Please try again."), REFUSED),
        (AppError("9 requests are waiting already; try again in a minute"), REFUSED),
        (AppError("something failed here"), FAILED),
        (RuntimeError("500: Internal Server Error"), FAILED),
        (httpx.ConnectError("refused"), FAILED),
        (httpx.RemoteProtocolError("closed"), FAILED),
        (httpx.ReadTimeout("silent"), LOST),
        (TimeoutError(), LOST),
    ],
)
def test_how_a_request_of_the_soak_ended(error: Exception, outcome: str) -> None:
    assert outcome_of(error) == outcome


def test_what_never_ended_is_lost() -> None:
    found = Soak(known=(), uploading=(), begun=5)
    found.ended = [Ended("a", "/x", ANSWERED, "", 1.0), Ended("b", "/x", LOST, "TimeoutError: 12 s", 1.0),
                   Ended("b", "/y", LOST, "TimeoutError: 7 s", 1.0)]  # fmt: skip
    assert (found.count(ANSWERED), found.count(LOST), found.count(LOST, "a"), found.count(FAILED)) == (1, 4, 0, 0)
    assert said(found.ended) == [("TimeoutError: n s", 2)]
    assert own_account({"x": {"seconds": 2.5, "done": 3}, "y": {"seconds": 1.0, "done": 1, "Busy": 2}}) == (
        "2 Busy, 4 done"
    )
