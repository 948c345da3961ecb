"""The promises of the model cache, with engines that are only a number of bytes."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.checkpoints.catalog import Catalog, Checkpoint
from shared.engines.decoders.prefixes import MIN_TOKENS, PrefixCache
from shared.errors import Busy, MemoryRefused, SuiteError
from shared.events import Loading, Progress
from shared.scheduling import cache as cache_module
from shared.scheduling.cache import ModelCache
from shared.scheduling.cache_entry import Borrowed

TEMPLATE = next(iter(Catalog.read()))
MB = 10**6
SOON = 20.0
"""Seconds after which a test that hangs fails."""


def checkpoint(name: str) -> Checkpoint:
    return TEMPLATE.model_copy(update={"id": name, "revision": "1"})


@dataclass(frozen=True)
class Block:
    """Something to keep: only a number of bytes."""

    nbytes: int


class FakeEngine:
    name = "fake"

    def __init__(self, nbytes: int, keeps: int = 0) -> None:
        self.nbytes = nbytes
        self.prefixes: PrefixCache[Block] = PrefixCache(keeps)
        self._visitors = itertools.count()

    @property
    def cached_bytes(self) -> int:
        return self.prefixes.nbytes

    @property
    def max_cached_bytes(self) -> int:
        return self.prefixes.max_bytes

    def limit_cache(self, nbytes: int) -> None:
        self.prefixes.limit(nbytes)

    def keep(self, nbytes: int) -> None:
        """As at the end of a request: another visitor's prompt was read."""
        self.prefixes.store(str(next(self._visitors)), range(MIN_TOKENS), Block(nbytes))


@dataclass
class Shelf:
    """Loads fake engines, notes what it does, and checks what must hold whenever a load starts or ends."""

    sizes: dict[str, int]
    turn_out: dict[str, int] = field(default_factory=dict)
    """Bytes of an engine where they differ from those announced."""
    keeps: dict[str, int] = field(default_factory=dict)
    """Most bytes that an engine would keep for later; most keep nothing."""
    faults: list[str] = field(default_factory=list)
    """Ids whose next load fails; each fails once."""
    loads: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    """Loads wait for it."""
    under_way: Counter[str] = field(default_factory=Counter)
    lock: Any = field(default_factory=threading.Lock)
    cache: Any = None

    def memory_bytes(self, checkpoint: Checkpoint) -> int:
        return self.sizes[checkpoint.id]

    def load(self, checkpoint: Checkpoint, progress: Progress) -> FakeEngine:
        name = checkpoint.id
        with self.lock:
            self.loads[name] += 1
            self.under_way[name] += 1
            self.check(self.under_way[name] == 1, f"two loads of {name} at once")
        self.check_budget()
        try:
            assert self.gate.wait(SOON)
            if name in self.faults:
                self.faults.remove(name)
                raise SuiteError(f"{name} is broken")
            return FakeEngine(self.turn_out.get(name, self.sizes[name]), self.keeps.get(name, 0))
        finally:
            with self.lock:
                self.under_way[name] -= 1
            self.check_budget()

    def check_budget(self) -> None:
        held = self.cache.bytes_held()
        self.check(held <= self.cache.budget, f"{held} bytes held of {self.cache.budget}")

    def check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stage(NamedTuple):
    cache: ModelCache
    shelf: Shelf
    clock: Clock


def stage(budget: int, sizes: dict[str, int], *, gate_open: bool = True, **settings: Any) -> Stage:
    shelf, clock = Shelf(sizes), Clock()
    cache = ModelCache(budget, shelf.load, shelf.memory_bytes, clock=clock, **settings)
    shelf.cache = cache
    if gate_open:
        shelf.gate.set()
    return Stage(cache, shelf, clock)


@pytest.fixture(autouse=True, scope="module")
def _eager() -> Iterator[None]:
    """No garbage collection at each eviction, short waits, and threads that are interrupted often."""
    interval = sys.getswitchinterval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "release_freed_memory", lambda: None)
        patch.setattr(cache_module, "HEARTBEAT", 0.005)
        sys.setswitchinterval(1e-5)
        yield
        sys.setswitchinterval(interval)


def end_of(waiting: Generator[Loading, None, Borrowed]) -> Borrowed:
    for _ in range(100_000):
        try:
            next(waiting)
        except StopIteration as ready:
            return ready.value
    raise AssertionError("never in memory")


def names_of(cache: ModelCache) -> set[str]:
    return {row["checkpoint"] for row in cache.report()["checkpoints"]}


def together(*jobs: Callable[[], None]) -> None:
    """Runs the jobs in threads of their own and raises the first error of any."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]


# -- many visitors at once, whatever they do -------------------------------------------------------

SIZES = {"a": 1, "b": 2, "c": 3, "d": 5, "e": 6}
STEPS = st.lists(
    st.tuples(st.sampled_from(["borrow", "borrow", "borrow", "leave", "unload", "pin", "unpin", "sweep", "fail"]),
              st.sampled_from(sorted(SIZES))),
    min_size=1,
    max_size=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@hypothesis_given(scripts=st.lists(STEPS, min_size=2, max_size=5), budget=st.integers(6, 12))
def test_promises_hold_whatever_visitors_do_at_once(scripts: list[list[tuple[str, str]]], budget: int) -> None:
    cache, shelf, _ = stage(budget, SIZES, idle_seconds=0.0, wait_seconds=1e9)
    shelf.keeps = {"a": 9, "b": 4, "d": 3}

    def use(name: str) -> None:
        with cache.hold(checkpoint(name)) as borrowed:
            for n in range(3):
                borrowed.engine.keep(n)
                shelf.check_budget()
                shelf.check(borrowed.entry.engine is borrowed.engine, f"{name} was evicted while it was borrowed")
                row = next((r for r in cache.report()["checkpoints"] if r["checkpoint"] == name), None)
                shelf.check(row is not None and row["borrows"] >= 1, f"{name} is borrowed and not in the report")

    def act(what: str, name: str) -> None:
        if what == "borrow":
            use(name)
        elif what == "leave":
            waiting = cache.borrow(checkpoint(name))
            try:
                next(waiting)
            except StopIteration as ready:
                ready.value.close()
            waiting.close()
        elif what == "unload":
            cache.unload(name)
        elif what == "pin":
            for _ in cache.pin(checkpoint(name)):
                pass
            # From one report: between two, others may unpin it and have it evicted.
            pinned = [row for row in cache.report()["checkpoints"] if row["pinned"]]
            shelf.check(all(row["state"] == "loaded" for row in pinned), "something pinned is gone")
            cache.unpin(name)
        elif what == "unpin":
            cache.unpin(name)
        elif what == "sweep":
            cache.sweep()
        else:
            shelf.faults.append(name)

    def visitor(script: list[tuple[str, str]]) -> Callable[[], None]:
        def run() -> None:
            for what, name in script:
                try:
                    act(what, name)
                except SuiteError:  # refused beside what is pinned, in use, or broken: all of them answers
                    continue

        return run

    together(*map(visitor, scripts))
    assert shelf.wrong == []
    report = cache.report()
    assert [row for row in report["checkpoints"] if row["borrows"]] == []
    assert report["bytes_in_use"] == sum(row["bytes"] for row in report["checkpoints"]) <= budget


@settings(max_examples=15, deadline=None)
@hypothesis_given(
    callers=st.lists(st.sampled_from(["a", "b"]), min_size=2, max_size=12), sizes=st.tuples(*[st.integers(1, 5)] * 2)
)
def test_however_many_ask_at_once_each_checkpoint_is_loaded_once(callers: list[str], sizes: tuple[int, int]) -> None:
    cache, shelf, _ = stage(10, {"a": sizes[0], "b": sizes[1]})
    start = threading.Barrier(len(callers))
    engines: list[tuple[str, Any]] = []

    def ask(name: str) -> Callable[[], None]:
        def run() -> None:
            start.wait(SOON)
            with cache.hold(checkpoint(name)) as borrowed:
                engines.append((name, borrowed.engine))

        return run

    together(*map(ask, callers))
    assert shelf.loads == Counter(set(callers))
    assert len({(name, id(engine)) for name, engine in engines}) == len(set(callers))
    assert shelf.wrong == []


# -- one step after another, against a model of what should happen -----------------------------------


@dataclass
class Kept:
    size: int
    used: int
    borrows: int = 0
    pinned: bool = False

    @property
    def idle(self) -> bool:
        return not self.borrows and not self.pinned


class CacheMachine(RuleBasedStateMachine):
    """What is evicted, refused and kept waiting is the same as in a model of a few lines."""

    NAMES = st.sampled_from(["a", "b", "c", "d", "e"])

    @initialize(budget=st.integers(5, 12), sizes=st.lists(st.integers(1, 7), min_size=5, max_size=5))
    def begin(self, budget: int, sizes: list[int]) -> None:
        self.stage = stage(budget, dict(zip("abcde", sizes, strict=True)), idle_seconds=0.0, wait_seconds=1e9)
        self.stage.cache._idle_seconds = 5.0  # set here, so that no thread sweeps beside us
        self.kept: dict[str, Kept] = {}
        self.loans: list[tuple[str, Borrowed]] = []
        self.hits = self.evicted = 0
        self.loads: Counter[str] = Counter()

    def tick(self) -> int:
        self.stage.clock.now += 1
        return int(self.stage.clock.now)

    def expected(self, name: str) -> str:
        """What borrowing gives; what is evicted for it leaves the model."""
        if name in self.kept:
            return "hit"
        need, budget = self.stage.shelf.sizes[name], self.stage.cache.budget
        if need > budget - sum(kept.size for kept in self.kept.values() if kept.pinned):
            return "refused"
        free = budget - sum(kept.size for kept in self.kept.values())
        idle = sorted((kept.used, other) for other, kept in self.kept.items() if kept.idle)
        if need > free + sum(self.kept[other].size for _, other in idle):
            return "waits"
        for _, other in idle:
            if need <= free:
                break
            free += self.kept.pop(other).size
            self.evicted += 1
        return "load"

    @rule(name=NAMES, pin=st.booleans())
    def borrow(self, name: str, pin: bool) -> None:
        now, expected = self.tick(), self.expected(name)
        waiting = self.stage.cache.borrow(checkpoint(name))
        if expected == "refused":
            with pytest.raises(MemoryRefused):
                next(waiting)
            return
        if expected == "waits":
            assert "others are using" in next(waiting).what
            waiting.close()
            return
        borrowed = end_of(waiting)
        assert borrowed.loaded == (expected == "hit")
        self.hits += expected == "hit"
        self.loads[name] += expected == "load"
        kept = self.kept.setdefault(name, Kept(self.stage.shelf.sizes[name], now))
        kept.borrows += 1
        self.loans.append((name, borrowed))
        if pin:
            for _ in self.stage.cache.pin(checkpoint(name)):
                pass
            self.hits += 1
            kept.pinned = True

    @precondition(lambda self: self.loans)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        name, borrowed = self.loans.pop(data.draw(st.integers(0, len(self.loans) - 1)))
        self.kept[name].used = self.tick()
        self.kept[name].borrows -= 1
        borrowed.close()
        borrowed.close()  # a second time changes nothing

    @rule(name=NAMES)
    def unload(self, name: str) -> None:
        self.tick()
        if name in self.kept and self.kept[name].borrows:
            with pytest.raises(Busy):
                self.stage.cache.unload(name)
            return
        self.stage.cache.unload(name)
        self.evicted += self.kept.pop(name, None) is not None

    @rule(name=NAMES)
    def unpin(self, name: str) -> None:
        self.stage.cache.unpin(name)
        if name in self.kept:
            self.kept[name].pinned = False

    @rule(seconds=st.integers(0, 6))
    def sweep(self, seconds: int) -> None:
        self.stage.clock.now += seconds
        self.stage.cache.sweep()
        for name, kept in list(self.kept.items()):
            if kept.idle and self.stage.clock.now - kept.used >= 5:
                del self.kept[name]
                self.evicted += 1

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "stage"):
            return
        report = self.stage.cache.report()
        found = {r["checkpoint"]: (r["bytes"], r["borrows"], r["pinned"]) for r in report["checkpoints"]}
        assert found == {name: (kept.size, kept.borrows, kept.pinned) for name, kept in self.kept.items()}
        assert report["bytes_in_use"] == sum(kept.size for kept in self.kept.values()) <= self.stage.cache.budget
        assert (report["hits"], report["evictions"]) == (self.hits, self.evicted)
        assert report["misses"] == sum(self.loads.values())
        assert self.stage.shelf.loads == self.loads
        assert self.stage.shelf.wrong == []
        for name, borrowed in self.loans:
            assert borrowed.engine is borrowed.entry.engine is not None, name


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


# -- each promise by itself --------------------------------------------------------------------------


def test_one_load_answers_all_who_wait() -> None:
    cache, shelf, _ = stage(10, {"a": 3}, gate_open=False)
    callers = [cache.borrow(checkpoint("a")) for _ in range(10)]
    for waiting in callers:
        assert next(waiting).checkpoint == "a"
    shelf.gate.set()
    loans = [end_of(waiting) for waiting in callers]
    assert shelf.loads["a"] == 1
    assert len({id(loan.engine) for loan in loans}) == 1
    assert not any(loan.loaded for loan in loans)
    assert cache.report()["checkpoints"][0]["borrows"] == 10


def test_every_waiter_sees_the_progress_of_the_one_load() -> None:
    told, go_on = threading.Event(), threading.Event()

    def load(checkpoint: Checkpoint, progress: Progress) -> FakeEngine:
        progress("reading weights", 3 * MB, 9 * MB)
        told.set()
        assert go_on.wait(SOON)
        return FakeEngine(9)

    cache = ModelCache(10, load, lambda _: 9)
    callers = [cache.borrow(checkpoint("a")) for _ in range(3)]
    for waiting in callers:
        next(waiting)
    assert told.wait(SOON)
    assert [next(waiting) for waiting in callers] == [Loading("a", "reading weights", 3 * MB, 9 * MB)] * 3
    go_on.set()
    for waiting in callers:
        end_of(waiting).close()


def test_what_cannot_fit_is_refused_before_anything_is_read() -> None:
    cache, shelf, _ = stage(100 * MB, {"big": 250 * MB})
    with pytest.raises(MemoryRefused, match=r"big needs 250 MB and the memory budget is 100 MB") as refused:
        cache.hold(checkpoint("big"))
    assert refused.value.field == "model"
    assert "SUITE_MEMORY_BUDGET" in refused.value.message
    assert shelf.loads == {}
    assert cache.bytes_held() == 0


def test_what_cannot_fit_beside_the_pinned_is_refused_and_evicts_nothing() -> None:
    cache, shelf, _ = stage(100 * MB, {"pinned": 60 * MB, "idle": 20 * MB, "big": 50 * MB})
    list(cache.pin(checkpoint("pinned")))
    cache.hold(checkpoint("idle")).close()
    with pytest.raises(MemoryRefused, match=r"needs 50 MB .* 100 MB, of which 60 MB are pinned"):
        cache.hold(checkpoint("big"))
    assert names_of(cache) == {"pinned", "idle"}
    assert shelf.loads["big"] == 0


def test_the_least_recently_used_goes_first_and_the_pinned_never() -> None:
    cache, _, clock = stage(9, {"a": 3, "b": 3, "c": 3, "d": 3, "e": 6})
    for name in "abc":
        cache.hold(checkpoint(name)).close()
        clock.now += 1
    cache.hold(checkpoint("a")).close()
    cache.hold(checkpoint("d")).close()
    assert names_of(cache) == {"a", "c", "d"}
    list(cache.pin(checkpoint("c")))
    clock.now += 1
    cache.hold(checkpoint("e")).close()
    assert names_of(cache) == {"c", "e"}


def test_only_as_many_are_evicted_as_needed() -> None:
    cache, _, clock = stage(9, {"a": 3, "b": 3, "c": 3, "d": 2})
    for name in "abcd":
        cache.hold(checkpoint(name)).close()
        clock.now += 1
    assert names_of(cache) == {"b", "c", "d"}


def test_an_evicted_engine_is_gone_from_memory() -> None:
    cache, _, _ = stage(3, {"a": 3, "b": 3})
    with cache.hold(checkpoint("a")) as borrowed:
        ghost = weakref.ref(borrowed.engine)
    cache.hold(checkpoint("b")).close()
    gc.collect()
    assert ghost() is None


def test_a_failed_load_tells_all_who_wait_and_leaves_nothing() -> None:
    cache, shelf, _ = stage(10, {"a": 3, "b": 10}, gate_open=False)
    shelf.faults.append("a")
    callers = [cache.borrow(checkpoint("a")) for _ in range(4)]
    for waiting in callers:
        next(waiting)
    shelf.gate.set()
    for waiting in callers:
        with pytest.raises(SuiteError, match="a is broken"):
            end_of(waiting)
    assert cache.bytes_held() == 0
    assert names_of(cache) == set()
    with cache.hold(checkpoint("a")) as again:
        assert isinstance(again.engine, FakeEngine)
    assert shelf.loads["a"] == 2
    cache.hold(checkpoint("b")).close()  # all of the budget is there


def test_a_waiter_who_leaves_does_not_end_the_load_for_the_others() -> None:
    cache, shelf, _ = stage(10, {"a": 3}, gate_open=False)
    first, second = cache.borrow(checkpoint("a")), cache.borrow(checkpoint("a"))
    next(first)
    next(second)
    first.close()
    assert cache.report()["checkpoints"][0]["borrows"] == 1
    shelf.gate.set()
    with end_of(second) as borrowed:
        assert borrowed.engine.nbytes == 3
    assert shelf.loads["a"] == 1


def test_when_all_who_wait_have_left_the_loaded_checkpoint_is_there_for_the_next() -> None:
    cache, shelf, _ = stage(10, {"a": 3, "b": 9}, gate_open=False)
    only = cache.borrow(checkpoint("a"))
    next(only)
    only.close()
    shelf.gate.set()
    with cache.hold(checkpoint("a")):
        assert shelf.loads["a"] == 1
    cache.hold(checkpoint("b")).close()  # and it is in nobody's way
    assert names_of(cache) == {"b"}


def test_a_request_waits_for_memory_in_use_and_gets_it_when_it_is_given_back() -> None:
    cache, shelf, _ = stage(10, {"a": 6, "b": 6})
    loan = cache.hold(checkpoint("a"))
    waiting = cache.borrow(checkpoint("b"))
    for _ in range(3):
        assert next(waiting) == Loading("b", "waiting for memory that others are using", 0, 0)
    assert shelf.loads["b"] == 0
    loan.close()
    with end_of(waiting) as borrowed:
        assert borrowed.entry.checkpoint.id == "b"
    assert names_of(cache) == {"b"}


def test_a_request_that_waits_too_long_for_memory_is_told_to_come_back() -> None:
    cache, _, clock = stage(10, {"a": 6, "b": 6}, wait_seconds=30.0)
    loan = cache.hold(checkpoint("a"))
    waiting = cache.borrow(checkpoint("b"))
    next(waiting)
    clock.now += 29
    next(waiting)
    clock.now += 2
    with pytest.raises(Busy, match="b needs is in use"):
        next(waiting)
    loan.close()
    cache.hold(checkpoint("b")).close()


def test_unloading_is_refused_while_somebody_uses_it() -> None:
    cache, _, _ = stage(10, {"a": 6})
    with cache.hold(checkpoint("a")), pytest.raises(Busy, match="a is in use by 1"):
        cache.unload("a")
    cache.unload("a")
    assert cache.bytes_held() == 0
    cache.unload("a")  # not there any more: nothing to do
    cache.unload("never heard of")


def test_an_admin_may_unload_what_is_pinned() -> None:
    cache, _, _ = stage(10, {"a": 6})
    list(cache.pin(checkpoint("a")))
    cache.unload("a")
    assert cache.bytes_held() == 0


def test_idle_checkpoints_are_unloaded_and_others_stay() -> None:
    cache, _, clock = stage(20, {"idle": 3, "used": 3, "pinned": 3, "fresh": 3})
    cache._idle_seconds = 60.0  # set here, so that no thread sweeps beside us
    cache.hold(checkpoint("idle")).close()
    list(cache.pin(checkpoint("pinned")))
    with cache.hold(checkpoint("used")):
        clock.now += 59
        cache.sweep()
        assert names_of(cache) == {"idle", "used", "pinned"}
        cache.hold(checkpoint("fresh")).close()
        clock.now += 1
        cache.sweep()
        assert names_of(cache) == {"used", "pinned", "fresh"}
        clock.now += 1000
        cache.sweep()
        assert names_of(cache) == {"used", "pinned"}


def test_the_sweeper_ends_with_the_cache() -> None:
    known = set(threading.enumerate())
    cache, _, _ = stage(10, {"a": 3}, idle_seconds=1000.0)
    (sweeper,) = set(threading.enumerate()) - known
    cache.close()
    sweeper.join(SOON)
    assert not sweeper.is_alive()


def test_a_load_under_way_is_neither_evicted_nor_loaded_over() -> None:
    cache, shelf, _ = stage(10, {"a": 6, "b": 6}, gate_open=False)
    first = cache.borrow(checkpoint("a"))
    next(first)
    first.close()
    second = cache.borrow(checkpoint("b"))
    assert "others are using" in next(second).what
    cache.unload("a")
    cache.sweep()
    assert cache.bytes_held() == 6
    shelf.gate.set()
    end_of(second).close()
    assert names_of(cache) == {"b"}
    assert shelf.wrong == []


def test_an_engine_larger_than_announced_makes_the_room_it_needs() -> None:
    cache, shelf, _ = stage(10, {"idle": 4, "a": 4})
    shelf.turn_out["a"] = 8
    cache.hold(checkpoint("idle")).close()
    with cache.hold(checkpoint("a")):
        assert names_of(cache) == {"a"}
        assert cache.bytes_held() == 8


# -- what engines keep for later ---------------------------------------------------------------------


def keepers(budget: int, sizes: dict[str, int], keeps: dict[str, int]) -> Stage:
    made = stage(budget, sizes)
    made.shelf.keeps = keeps
    return made


def test_what_is_kept_goes_before_weights_do() -> None:
    cache, shelf, clock = keepers(10, {"a": 3, "b": 3, "c": 3}, {"a": 100})
    with cache.hold(checkpoint("a")) as first:
        for size in (1, 2, 3):
            first.engine.keep(size)
        engine = first.engine
    clock.now += 1
    cache.hold(checkpoint("b")).close()
    assert (engine.cached_bytes, cache.bytes_held()) == (3, 9), "the oldest two went, the newest stays"
    cache.hold(checkpoint("c")).close()
    assert (engine.cached_bytes, cache.bytes_held()) == (0, 9)
    assert names_of(cache) == {"a", "b", "c"}
    assert cache.report()["evictions"] == 0
    assert shelf.wrong == []


def test_an_engine_in_use_gives_up_what_it_keeps_too() -> None:
    cache, shelf, _ = keepers(10, {"a": 4, "b": 6}, {"a": 100})
    with cache.hold(checkpoint("a")) as first:
        first.engine.keep(6)
        assert cache.bytes_held() == 10
        cache.hold(checkpoint("b")).close()
        assert (first.engine.cached_bytes, cache.bytes_held()) == (0, 10)
        first.engine.keep(1)
        assert cache.bytes_held() == 10
    assert shelf.wrong == []


def test_keeping_stays_within_the_budget_and_within_its_own_bound() -> None:
    cache, _, _ = keepers(10, {"a": 4, "b": 2}, {"a": 5})
    with cache.hold(checkpoint("a")) as first:
        for size, kept in ((6, 0), (5, 5), (2, 2), (2, 4), (2, 4)):
            first.engine.keep(size)
            assert first.engine.cached_bytes == kept
        with cache.hold(checkpoint("b")):
            first.engine.keep(5)  # more than the four bytes that are left: what there is stays
            assert cache.bytes_held() == 4 + 2 + 4


def test_what_was_evicted_or_failed_leaves_room_to_keep_again() -> None:
    cache, shelf, _ = keepers(10, {"a": 4, "b": 6}, {"a": 6})
    shelf.faults.append("b")
    with cache.hold(checkpoint("a")) as first:
        with pytest.raises(SuiteError, match="b is broken"):
            cache.hold(checkpoint("b"))
        first.engine.keep(6)
        assert cache.bytes_held() == 10
        cache.hold(checkpoint("b")).close()
        first.engine.keep(6)
        assert first.engine.cached_bytes == 0
        cache.unload("b")
        first.engine.keep(6)
        assert cache.bytes_held() == 10


def test_what_was_swept_leaves_room_to_keep_again() -> None:
    cache, _, clock = keepers(10, {"a": 4, "b": 6}, {"a": 6})
    cache._idle_seconds = 60.0  # set here, so that no thread sweeps beside us
    with cache.hold(checkpoint("a")) as first:
        cache.hold(checkpoint("b")).close()
        clock.now += 60
        cache.sweep()
        first.engine.keep(6)
        assert cache.bytes_held() == 10


def test_an_adopted_engine_keeps_within_the_budget_too() -> None:
    cache, _, _ = stage(10, {})
    engine = FakeEngine(4, keeps=100)
    cache.adopt(checkpoint("a"), engine)
    for size in (7, 6):
        engine.keep(size)
    assert (engine.cached_bytes, cache.bytes_held()) == (6, 10)


@pytest.mark.parametrize("last", ["a", "b"])
def test_of_several_the_last_used_may_keep_first(last: str) -> None:
    cache, _, clock = keepers(10, {"a": 2, "b": 2, "c": 1}, {"a": 4, "b": 4})
    for name in ("a", "b", last):
        cache.hold(checkpoint(name)).close()
        clock.now += 1
    engines = {held.id: engine for held, engine in cache.engines()}
    with cache.hold(checkpoint("c")):  # five bytes are left for two who would keep four each
        for engine in engines.values():
            for _ in range(5):
                engine.keep(1)
        kept = {name: engine.cached_bytes for name, engine in engines.items()}
        assert kept == {"a": 1, "b": 1, last: 4}
        assert cache.bytes_held() == 10


def test_what_is_kept_is_in_the_report_and_goes_with_the_engine() -> None:
    cache, _, _ = keepers(10, {"a": 4, "b": 7}, {"a": 6})
    with cache.hold(checkpoint("a")) as first:
        first.engine.keep(5)
        assert cache.report()["bytes_in_use"] == cache.report()["checkpoints"][0]["bytes"] == 9
    cache.hold(checkpoint("b")).close()
    assert (names_of(cache), cache.bytes_held()) == ({"b"}, 7)


def test_an_engine_too_large_beside_what_is_in_use_is_refused_and_dropped() -> None:
    cache, shelf, _ = stage(10 * MB, {"used": 4 * MB, "a": 4 * MB})
    shelf.turn_out["a"] = 8 * MB
    with cache.hold(checkpoint("used")):
        with pytest.raises(MemoryRefused, match="a turned out to need 8 MB"):
            cache.hold(checkpoint("a"))
        assert names_of(cache) == {"used"}
        assert cache.bytes_held() == 4 * MB


def test_an_engine_smaller_than_announced_leaves_room_for_others() -> None:
    cache, shelf, _ = stage(10, {"a": 8, "b": 6})
    shelf.turn_out["a"] = 4
    with cache.hold(checkpoint("a")), cache.hold(checkpoint("b")):
        assert cache.bytes_held() == 10


def test_two_revisions_of_a_checkpoint_are_two_checkpoints() -> None:
    cache, shelf, _ = stage(10, {"a": 3})
    newer = checkpoint("a").model_copy(update={"revision": "2"})
    with cache.hold(checkpoint("a")) as old, cache.hold(newer) as new:
        assert old.engine is not new.engine
    assert shelf.loads["a"] == 2


def test_the_report_tells_what_is_in_memory() -> None:
    cache, shelf, clock = stage(10 * MB, {"a": 3 * MB, "b": 2 * MB})
    loan = cache.hold(checkpoint("a"))
    cache.hold(checkpoint("a")).close()
    list(cache.pin(checkpoint("a")))
    clock.now += 7
    shelf.gate.clear()
    under_way = cache.borrow(checkpoint("b"))
    next(under_way)
    assert cache.report() == {
        "budget_bytes": 10 * MB,
        "bytes_in_use": 5 * MB,
        "hits": 2,
        "misses": 2,
        "evictions": 0,
        "checkpoints": [
            {
                "checkpoint": "a",
                "revision": "1",
                "state": "loaded",
                "engine": "fake",
                "bytes": 3 * MB,
                "borrows": 1,
                "pinned": True,
                "hits": 2,
                "seconds_since_use": 7.0,
                "seconds_to_load": 0.0,
            },
            {
                "checkpoint": "b",
                "revision": "1",
                "state": "loading",
                "engine": TEMPLATE.engine,
                "bytes": 2 * MB,
                "borrows": 1,
                "pinned": False,
                "hits": 0,
                "seconds_since_use": None,
                "seconds_to_load": 0.0,
            },
        ],
    }
    shelf.gate.set()
    end_of(under_way).close()
    loan.close()


def test_a_load_that_takes_its_time_is_reported() -> None:
    clock = Clock()

    def load(checkpoint: Checkpoint, progress: Progress) -> FakeEngine:
        clock.now += 2.5
        return FakeEngine(1)

    cache = ModelCache(10, load, lambda _: 1, clock=clock)
    cache.hold(checkpoint("a")).close()
    assert cache.report()["checkpoints"][0]["seconds_to_load"] == 2.5


def test_many_threads_that_need_more_than_fits_all_get_their_turn() -> None:
    """Three that never fit together, asked for by many at once: nobody is lost, none is starved."""
    cache, shelf, _ = stage(10, {"a": 6, "b": 6, "c": 6}, wait_seconds=1e9)
    served: list[str] = []

    def ask(name: str) -> Callable[[], None]:
        def run() -> None:
            for _ in range(5):
                with cache.hold(checkpoint(name)) as borrowed:
                    assert borrowed.engine.nbytes == 6
                    served.append(name)

        return run

    together(*(ask(name) for name in itertools.islice(itertools.cycle("abc"), 9)))
    assert Counter(served) == {"a": 15, "b": 15, "c": 15}
    assert shelf.wrong == []
