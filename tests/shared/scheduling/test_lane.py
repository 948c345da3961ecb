"""The queue is fair between visitors, says the true place, and loses nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.engines.compute import AGAIN, Failed
from shared.errors import Busy, Cancelled
from shared.scheduling import lane as lane_module
from shared.scheduling.admission import Admission
from shared.scheduling.fair_queue import FairQueue
from shared.scheduling.lane import Lane, Timing

SOON = 20.0
"""Seconds after which a test that hangs fails."""


# -- fair queue ------------------------------------------------------------------------------------

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "pop", "remove"]), st.sampled_from("abcd"), st.integers(0, 9)),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(operations=OPERATIONS)
def test_place_is_how_many_pops_away_an_item_is(operations: list[tuple[str, str, int]]) -> None:
    queue: FairQueue[int] = FairQueue()
    waiting: list[tuple[str, int]] = []
    for number, (what, visitor, choice) in enumerate(operations):
        if what == "put":
            queue.put(visitor, number)
            waiting.append((visitor, number))
        elif what == "pop" and waiting:
            popped = queue.pop()
            waiting = [pair for pair in waiting if pair[1] != popped]
        elif what == "remove" and waiting:
            gone = waiting.pop(choice % len(waiting))
            queue.remove(*gone)
            assert queue.place(*gone) == 0
    assert len(queue) == len(waiting)
    places = {item: queue.place(visitor, item) for visitor, item in waiting}
    drained = [queue.pop() for _ in waiting]
    assert places == {item: place for place, item in enumerate(drained, 1)}
    assert len(queue) == 0


def test_visitors_take_turns_and_each_keeps_its_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.put(item[0], item)
    assert [queue.pop() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_removing_what_is_not_there_changes_nothing() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("a", "a1")
    queue.remove("a", "other")
    queue.remove("stranger", "a1")
    assert queue.place("a", "a1") == 1
    assert queue.place("stranger", "a1") == 0


# -- admission -------------------------------------------------------------------------------------


def test_admission_lets_in_as_many_as_allowed_and_tells_the_others_their_place() -> None:
    admission = Admission(max_running=2, queue_size=10)
    with ExitStack() as running, ExitStack() as queued:
        assert running.enter_context(admission.enter("a"))(0) == 0
        assert running.enter_context(admission.enter("b"))(0) == 0
        third, fourth = (queued.enter_context(admission.enter(visitor)) for visitor in "cd")
        assert (third(0), fourth(0)) == (1, 2)
        assert admission.report() == {"running": 2, "queued": 2}
        running.close()
        assert (third(SOON), fourth(SOON)) == (0, 0)
    assert admission.report() == {"running": 0, "queued": 0}


def test_a_full_queue_turns_the_next_away_and_keeps_the_others() -> None:
    admission = Admission(max_running=1, queue_size=2)
    with ExitStack() as stack:
        for visitor in "abc":
            stack.enter_context(admission.enter(visitor))
        with pytest.raises(Busy, match="2 requests are waiting"):
            stack.enter_context(admission.enter("d"))
        assert admission.report() == {"running": 1, "queued": 2}
    with admission.enter("d") as wait:
        assert wait(0) == 0


def test_leaving_the_queue_gives_the_place_up() -> None:
    admission = Admission(max_running=1, queue_size=5)
    with ExitStack() as stack, ExitStack() as leaver:
        first = ExitStack()
        first.enter_context(admission.enter("a"))
        leaver.enter_context(admission.enter("b"))
        last = stack.enter_context(admission.enter("c"))
        assert last(0) == 2
        leaver.close()
        assert last(0) == 1
        first.close()
        assert last(0) == 0
        assert admission.report() == {"running": 1, "queued": 0}
    assert admission.report() == {"running": 0, "queued": 0}


def test_an_error_in_the_request_gives_the_place_back() -> None:
    admission = Admission(max_running=1, queue_size=1)
    with pytest.raises(RuntimeError, match="boom"), admission.enter("a"):
        raise RuntimeError("boom")
    assert admission.report() == {"running": 0, "queued": 0}


def test_one_request_of_another_visitor_goes_before_the_many_of_the_first() -> None:
    admission = Admission(max_running=1, queue_size=20)
    with ExitStack() as stack:
        stack.enter_context(admission.enter("busy"))
        many = [stack.enter_context(admission.enter("busy")) for _ in range(5)]
        single = stack.enter_context(admission.enter("other"))
        assert [wait(0) for wait in many] == [1, 3, 4, 5, 6]
        assert single(0) == 2


def test_many_threads_never_run_more_at_once_than_allowed_and_all_get_in() -> None:
    admission, lock = Admission(max_running=3, queue_size=100), threading.Lock()
    inside, most, served = 0, 0, 0

    def visit(visitor: str) -> None:
        nonlocal inside, most, served
        with admission.enter(visitor) as wait:
            while wait(SOON):
                pass
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
                served += 1

    threads = [threading.Thread(target=visit, args=(str(i % 7),), daemon=True) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert served == 40
    assert most <= 3
    assert admission.report() == {"running": 0, "queued": 0}


# -- lane ------------------------------------------------------------------------------------------


@pytest.fixture
def lane() -> Iterator[Lane]:
    lane = Lane(cores=2)
    yield lane
    lane.close()


class Held:
    """Occupies a lane until `release()`, so that a test can line others up behind."""

    def __init__(self, lane: Lane) -> None:
        self.lane, self._gate = lane, threading.Event()
        begun = threading.Event()

        def step() -> None:
            begun.set()
            assert self._gate.wait(SOON)

        self.holder = threading.Thread(target=run, args=(lane, step, "holder"), daemon=True)
        self.holder.start()
        assert begun.wait(SOON)

    def wait_for(self, waiting: int) -> None:
        """Returns once so many steps are in the queue. Nobody else listens: the only lane thread is held."""
        with self.lane._work:
            assert self.lane._work.wait_for(lambda: len(self.lane._queue) == waiting, SOON)

    def release(self) -> None:
        self._gate.set()
        self.holder.join(SOON)


def run(lane: Lane, step: Callable[[], object], visitor: str = "a", cancel: threading.Event | None = None) -> object:
    return lane.run(visitor, step, cancel or threading.Event(), Timing())


def start(*jobs: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()


def test_run_returns_what_the_step_returns_and_runs_it_elsewhere(lane: Lane) -> None:
    assert run(lane, lambda: 6 * 7) == 42
    assert run(lane, lambda: threading.current_thread().name) == "lane-0"


def test_run_raises_what_the_step_raises_and_the_lane_goes_on(lane: Lane) -> None:
    def fail() -> None:
        raise ZeroDivisionError("boom")

    with pytest.raises(ZeroDivisionError, match="boom"):
        run(lane, fail)
    assert run(lane, lambda: "still here") == "still here"


def test_a_cancelled_request_does_not_run(lane: Lane) -> None:
    cancel, ran = threading.Event(), []
    cancel.set()
    with pytest.raises(Cancelled):
        run(lane, lambda: ran.append(1), cancel=cancel)
    assert ran == []


def test_a_request_cancelled_while_it_waits_does_not_run(lane: Lane) -> None:
    held, cancel, ran, outcome = Held(lane), threading.Event(), [], []

    def wait_in_line() -> None:
        try:
            run(lane, lambda: ran.append(1), cancel=cancel)
        except Cancelled:
            outcome.append("cancelled")

    threads = start(wait_in_line)
    held.wait_for(1)
    cancel.set()
    held.release()
    join(threads)
    assert (ran, outcome) == ([], ["cancelled"])


def test_timing_adds_up_waiting_and_computing(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(lane_module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    timing = Timing()

    def step() -> None:
        clock.now += 5

    for _ in range(2):
        lane.run("a", step, threading.Event(), timing)
    assert (timing.queued, timing.running) == (0, 10)

    held = Held(lane)
    threads = start(lambda: lane.run("a", step, threading.Event(), timing))
    held.wait_for(1)
    clock.now += 3
    held.release()
    join(threads)
    assert (timing.queued, timing.running) == (3, 15)


def test_a_step_that_fails_is_counted_too(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(lane_module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    timing = Timing()

    def fail() -> None:
        clock.now += 2
        raise Cancelled

    with pytest.raises(Cancelled):
        lane.run("a", fail, threading.Event(), timing)
    assert (timing.queued, timing.running) == (0, 2)


def test_closing_ends_those_who_wait_and_refuses_new_ones() -> None:
    lane = Lane(cores=1)
    held, outcomes = Held(lane), []

    def wait_in_line() -> None:
        try:
            run(lane, lambda: outcomes.append("ran"))
        except Cancelled:
            outcomes.append("cancelled")

    threads = start(*[wait_in_line] * 3)
    held.wait_for(3)
    closing = start(lane.close)  # waits for the step that is being computed
    join(threads)
    assert outcomes == ["cancelled"] * 3
    held.release()
    join(closing)
    with pytest.raises(Cancelled):
        run(lane, lambda: None)


def test_a_visitor_with_many_steps_does_not_starve_another(lane: Lane) -> None:
    held, order = Held(lane), []
    threads = []
    for number in range(10):
        threads += start(lambda: run(lane, lambda: order.append("busy"), "busy"))
        held.wait_for(number + 1)
    threads += start(lambda: run(lane, lambda: order.append("other"), "other"))
    held.wait_for(11)
    held.release()
    join(threads)
    assert order.index("other") <= 1
    assert order.count("busy") == 10


def test_one_step_computes_at_a_time(lane: Lane) -> None:
    lock, together = threading.Lock(), []

    def step() -> None:
        together.append(lock.acquire(blocking=False))
        lock.release()

    join(start(*[lambda n=n: [run(lane, step, str(n)) for _ in range(20)] for n in range(4)]))
    assert together == [True] * 80


def test_a_step_alone_gets_all_cores_and_two_share_them() -> None:
    lane = Lane(cores=2, width=2)
    both, alone = threading.Barrier(2), threading.Event()

    def threads_beside_another() -> int:
        both.wait(timeout=30)
        return torch.get_num_threads()

    assert lane.run("a", torch.get_num_threads, alone, Timing()) == 2
    with ThreadPoolExecutor(2) as visitors:
        asked = [visitors.submit(lane.run, name, threads_beside_another, alone, Timing()) for name in "ab"]
        found = sorted(future.result(timeout=30) for future in asked)
    assert found[0] == 1
    assert lane.run("a", torch.get_num_threads, alone, Timing()) == 2
    lane.close()


# -- batches -----------------------------------------------------------------------------------------


class Sums:
    """A kernel that notes its batches; an item is its name and how many steps it wants."""

    def __init__(self, most: int = 8) -> None:
        self.batches: list[list[str]] = []
        self.most, self.first, self.go = most, threading.Event(), threading.Event()

    def __call__(self, items: Sequence[list[Any]]) -> list[Any]:
        self.batches.append([name for name, _ in items])
        if not self.first.is_set():
            self.first.set()
            assert self.go.wait(SOON)
        outcomes: list[Any] = []
        for item in items:
            item[1] -= 1
            failed = Failed(ValueError(item[0])) if item[0] == "broken" else None
            outcomes.append(failed or (AGAIN if item[1] else item[0].upper()))
        return outcomes

    def can_join(self, batch: Sequence[Any], item: Any) -> bool:
        return len(batch) < self.most

    def most_cores(self, items: Sequence[Any]) -> int:
        return 1


def submit(lane: Lane, kernel: Sums, visitor: str, name: str, steps: int = 1, **how: Any) -> Any:
    return lane.submit(visitor, kernel, [name, steps], how.pop("cancel", threading.Event()), Timing(), **how)


@pytest.fixture
def single() -> Iterator[Lane]:
    lane = Lane(1)
    yield lane
    lane.close()


def test_what_waits_for_one_kernel_is_computed_together_and_joins_and_leaves(single: Lane) -> None:
    kernel = Sums()
    futures = [submit(single, kernel, "a", "alone", 2)]
    assert kernel.first.wait(SOON)
    futures += [submit(single, kernel, visitor, name, steps) for visitor, name, steps in (("b", "x", 1), ("c", "y", 3))]
    kernel.go.set()
    assert [future.result(SOON) for future in futures] == ["ALONE", "X", "Y"]
    assert kernel.batches[0] == ["alone"]
    assert sorted(kernel.batches[1]) == ["alone", "x", "y"]
    assert kernel.batches[2:] == [["y"], ["y"]]


def test_ones_many_pieces_leave_room_for_anothers_one(single: Lane) -> None:
    kernel = Sums(most=4)
    begun = [submit(single, kernel, "greedy", "first")]
    assert kernel.first.wait(SOON)
    begun += [submit(single, kernel, "greedy", f"row {n}") for n in range(40)]
    begun.append(submit(single, kernel, "modest", "click"))
    kernel.go.set()
    assert all(future.result(SOON) for future in begun)
    assert "click" in kernel.batches[1]
    assert max(map(len, kernel.batches)) == 4


def test_two_free_cores_divide_what_waits_for_one_kernel() -> None:
    lane, kernel, other = Lane(2, width=2), Sums(), Sums()
    begun = [submit(lane, other, "z", "other")]
    assert other.first.wait(SOON)
    begun.append(submit(lane, kernel, "a", "first"))
    assert kernel.first.wait(SOON)
    begun += [submit(lane, kernel, visitor, visitor) for visitor in "bcdefgh"]
    other.go.set()  # one core is free, the other still has the first of eight
    assert all(future.result(SOON) for future in begun[2:6])
    kernel.go.set()
    assert all(future.result(SOON) for future in begun)
    lane.close()
    assert [len(batch) for batch in kernel.batches[:2]] == [1, 4]


def test_another_group_or_kernel_is_another_batch(single: Lane) -> None:
    kernel, other = Sums(), Sums()
    other.first.set()
    begun = [submit(single, kernel, "a", "plain")]
    assert kernel.first.wait(SOON)
    begun += [submit(single, kernel, "b", "plain"), submit(single, kernel, "c", "adapted", group="adapter")]
    begun += [submit(single, other, "d", "other")]
    kernel.go.set()
    assert [future.result(SOON) for future in begun] == ["PLAIN", "PLAIN", "ADAPTED", "OTHER"]
    assert kernel.batches == [["plain"], ["plain"], ["adapted"]]


def test_the_cancelled_and_the_broken_leave_the_others_unharmed(single: Lane) -> None:
    kernel, cancel = Sums(), threading.Event()
    begun = [submit(single, kernel, "a", "first")]
    assert kernel.first.wait(SOON)
    gone = submit(single, kernel, "b", "gone", 5, cancel=cancel)
    broken = submit(single, kernel, "c", "broken")
    begun.append(submit(single, kernel, "d", "last", 3))
    cancel.set()
    kernel.go.set()
    assert [future.result(SOON) for future in begun] == ["FIRST", "LAST"]
    with pytest.raises(Cancelled):
        gone.result(SOON)
    with pytest.raises(ValueError, match="broken"):
        broken.result(SOON)
    assert not any("gone" in batch for batch in kernel.batches)


def test_closing_ends_what_wants_another_step() -> None:
    lane, kernel = Lane(1), Sums()
    future = submit(lane, kernel, "a", "endless", 10**9)
    assert kernel.first.wait(SOON)
    kernel.go.set()
    lane.close()
    with pytest.raises(Cancelled):
        future.result(SOON)
