"""One piece of work however many ask, in this process and in others."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import Cancelled, WeightsCorrupt
from shared.events import Progress, result_of
from shared.fetching import single_flight
from shared.fetching.single_flight import SingleFlight, one_process_at_a_time

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_flight, "HEARTBEAT", 0.01)


class Work:
    """Reports progress until it is let go, then answers or fails."""

    def __init__(self, answer: Any = "an answer") -> None:
        self.answer = answer
        self.begun: list[int] = []
        self.ended: list[str] = []
        self.go = threading.Event()

    def __call__(self, progress: Progress) -> Any:
        self.begun.append(len(self.begun))
        try:
            while not self.go.wait(0.005):
                progress("working", 1, 2)
        except Cancelled:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def in_threads(number: int, ask: Callable[[], Any]) -> tuple[list[threading.Thread], list[Any]]:
    answers: list[Any] = []

    def one() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            answers.append(error)

    threads = [threading.Thread(target=one) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads, answers


def waiting_in(flights: SingleFlight[Any], key: str) -> int:
    flight = flights._flights.get(key)
    return flight.waiting if flight else 0


def wait_until(true: Callable[[], bool]) -> None:
    over = threading.Event()
    for _ in range(1000):
        if true():
            return
        over.wait(0.01)
    raise AssertionError("it did not come about")


def test_all_who_ask_share_one_run_and_its_progress() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    seen: list[tuple[str, int, int]] = []

    def ask() -> str:
        return result_of(flights.run("one", work), seen.append)

    threads, answers = in_threads(20, ask)
    wait_until(lambda: waiting_in(flights, "one") == 20 and seen.count(("working", 1, 2)) >= 20)
    work.go.set()
    for thread in threads:
        thread.join(10)
    assert answers == ["an answer"] * 20
    assert work.begun == [0]
    assert not flights._flights


def test_all_get_the_error_and_the_next_one_tries_again() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work(WeightsCorrupt("is damaged"))
    threads, answers = in_threads(8, lambda: result_of(flights.run("one", work)))
    wait_until(lambda: waiting_in(flights, "one") == 8)
    work.go.set()
    for thread in threads:
        thread.join(10)
    assert [str(answer) for answer in answers] == ["is damaged"] * 8
    assert result_of(flights.run("one", lambda progress: "now it works")) == "now it works"


def test_keys_do_not_wait_for_each_other() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    held = flights.run("one", work)
    next(held)
    assert result_of(flights.run("another", lambda progress: "at once")) == "at once"
    work.go.set()
    assert result_of(held) == "an answer"


def test_one_who_leaves_does_not_end_it_for_the_others() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    first, second = flights.run("one", work), flights.run("one", work)
    assert [next(first), next(second)]
    first.close()
    work.go.set()
    assert result_of(second) == "an answer"
    assert work.ended == ["done"]


def test_when_the_last_one_leaves_it_ends() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    first, second = flights.run("one", work), flights.run("one", work)
    assert [next(first), next(second)]
    first.close()
    second.close()
    wait_until(lambda: work.ended == ["cancelled"])
    wait_until(lambda: not flights._flights)


def test_who_comes_after_the_last_one_left_gets_a_run_of_their_own() -> None:
    """The old run may be in the middle of a step; nobody new may be told that it was cancelled."""
    flights: SingleFlight[str] = SingleFlight()
    in_a_step, step_over = threading.Event(), threading.Event()
    ended: list[str] = []

    def slow_to_notice(progress: Progress) -> str:
        in_a_step.set()
        step_over.wait(10)
        try:
            progress("a step is over", 0, 0)
        except Cancelled:
            ended.append("the old one")
            raise
        return "of the old one"

    left = flights.run("one", slow_to_notice)
    next(left)
    assert in_a_step.wait(10)
    left.close()
    successor = Work("of the new one")
    asking = flights.run("one", successor)
    next(asking)
    step_over.set()
    wait_until(lambda: ended == ["the old one"])
    next(asking)  # the old one's end takes nothing from the new one
    joined = flights.run("one", successor)
    next(joined)
    successor.go.set()
    assert result_of(asking) == result_of(joined) == "of the new one"
    assert successor.begun == [0]


def test_a_run_that_nobody_began_to_follow_does_not_begin() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    flights.run("one", work).close()
    assert work.begun == []


def test_a_thread_that_cannot_start_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    flights: SingleFlight[str] = SingleFlight()

    def exhausted(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", exhausted)
        with pytest.raises(RuntimeError):
            next(flights.run("one", lambda progress: "never"))
    assert result_of(flights.run("one", lambda progress: "later")) == "later"


def test_many_who_come_and_go() -> None:
    """Whoever stays gets an answer, whatever the others do."""
    flights: SingleFlight[int] = SingleFlight()

    def work(progress: Progress) -> int:
        for step in range(5):
            progress("working", step, 5)
            threading.Event().wait(0.002)
        return 7

    def come_and_go(number: int) -> int | None:
        asking = flights.run("one", work)
        if number % 3:
            return result_of(asking)
        next(asking, None)
        asking.close()
        return None

    numbers = iter(range(60))
    lock = threading.Lock()

    def ask() -> int | None:
        with lock:
            number = next(numbers)
        return come_and_go(number)

    threads, answers = in_threads(60, ask)
    for thread in threads:
        thread.join(20)
    assert answers.count(7) == 40
    assert answers.count(None) == 20
    wait_until(lambda: not flights._flights)


# -- several processes -----------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from shared.fetching.single_flight import one_process_at_a_time
with one_process_at_a_time(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Generator[subprocess.Popen[str]]:
    """Another process that holds `tmp_path/a.lock`."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a.lock")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_waited_for(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    looks: list[int] = []

    def waiting() -> None:
        looks.append(1)
        if len(looks) == 3:
            assert holder.stdin is not None
            holder.stdin.close()

    with one_process_at_a_time(tmp_path / "a.lock", waiting):
        assert len(looks) >= 3


def test_a_lock_of_one_that_was_killed_is_free(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    with one_process_at_a_time(tmp_path / "a.lock", lambda: None):
        pass


def test_waiting_can_be_given_up(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    def waiting() -> None:
        raise Cancelled

    with pytest.raises(Cancelled), one_process_at_a_time(tmp_path / "a.lock", waiting):
        raise AssertionError("two hold it")


def test_threads_exclude_each_other_and_an_error_frees_the_lock(tmp_path: Path) -> None:
    inside: list[int] = []

    def work() -> None:
        with one_process_at_a_time(tmp_path / "new" / "a.lock", lambda: None):
            inside.append(1)
            assert len(inside) == 1
            inside.pop()
            raise WeightsCorrupt("on purpose")

    threads, answers = in_threads(6, work)
    for thread in threads:
        thread.join(10)
    assert [str(answer) for answer in answers] == ["on purpose"] * 6
