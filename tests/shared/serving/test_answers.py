"""Kept answers: whose they are, how long they are right, and how much room they take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared.errors import Cancelled, InvalidInput, SuiteError
from shared.events import Done, Event, RunInfo, Running
from shared.serving.answers import MOST_ANSWERS, OFFER_SECONDS, STORED_SECONDS, Answers, Offer, offer_of
from shared.serving.context import Context
from shared.serving.endpoint import Endpoint
from shared.serving.requests import Request, Text
from shared.serving.runtime import Runtime
from shared.serving.traffic import Traffic
from shared.settings import Settings

RUNTIME = cast(Runtime, SimpleNamespace(settings=Settings(), elsewhere=None))
RUN = RunInfo(checkpoint="tiny", revision="1", engine="fake", seconds_running=1.5)
ANN, BOB = "1.2.3.4/ann", "1.2.3.4/bob"


class Echo(Request):
    text: Text
    model: str = ""
    sampled: bool = False

    @property
    def deterministic(self) -> bool:
        return not self.sampled


@dataclass
class Said:
    text: str
    lines: list[str]

    def outputs(self) -> tuple[Any, ...]:
        return (self.text,)


class Shop:
    """An endpoint that counts what it computes, over an offer and a clock that tests change."""

    def __init__(self, nbytes: int = 10**6) -> None:
        self.computed: list[str] = []
        self.now = 1000.0
        self.offer = Offer((("tiny", "1", True), ("other", "", True)), ("mine@abc",))
        self.run = RUN
        self.failure: BaseException | None = None
        self.answers = Answers(nbytes, lambda: self.now, lambda runtime: self.offer)
        self.traffic = Traffic(answers=self.answers)
        self.meanwhile: Callable[[], None] = lambda: None

        def echo(request: Echo, context: Context) -> Iterator[Event]:
            yield Running("saying")
            self.computed.append(request.text)
            if self.failure:
                raise self.failure
            self.meanwhile()
            yield Done(Said(request.text, [request.text]), self.run)

        self.endpoint = Endpoint(echo, Echo, {"text": str})

    def ask(self, text: str = "hey", visitor: str = ANN, *, admin: bool = False, **values: Any) -> Done:
        context = Context(RUNTIME, visitor, admin)
        *_, last = self.endpoint.run({"text": text, **values}, context, self.traffic)
        assert isinstance(last, Done)
        return last

    def cached(self, *asked: Any, **values: Any) -> bool:
        return self.ask(*asked, **values).run.cached


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_the_same_question_is_computed_once_and_the_answer_says_so(shop: Shop) -> None:
    first, second = shop.ask(), shop.ask()
    assert shop.computed == ["hey"]
    assert (first.run.cached, second.run.cached) == (False, True)
    assert second.result == first.result
    assert second.run.model_copy(update={"cached": False}) == first.run
    assert shop.traffic.report()["echo"].items() >= {"done": 1, "cached": 1}.items()


def test_a_kept_answer_is_the_only_event(shop: Shop) -> None:
    shop.ask()
    assert len(list(shop.endpoint.run({"text": "hey"}, Context(RUNTIME, ANN), shop.traffic))) == 1


def test_another_input_setting_or_endpoint_is_another_question(shop: Shop) -> None:
    shop.ask()
    assert not shop.cached("hey!")
    assert not shop.cached(model="tiny")
    other = Endpoint(lambda request, context: shop.endpoint.task(request, context), Echo, {"text": str})
    (*_, last) = other.run({"text": "hey"}, Context(RUNTIME, ANN), shop.traffic)
    assert isinstance(last, Done)
    assert not last.run.cached


def test_an_answer_is_its_visitors_own(shop: Shop) -> None:
    shop.ask()
    for other in (BOB, "1.2.3.5/ann", "1.2.3.4/"):
        assert not shop.cached(visitor=other)
    assert not shop.cached(admin=True), "what the admin was told, the same visitor may not be after signing out"
    assert shop.cached()


@pytest.mark.parametrize("visitor", ["1.2.3.4/", "local", "/session", "warm-up"])
def test_nothing_is_kept_without_an_address_and_a_session(shop: Shop, visitor: str) -> None:
    assert [shop.cached(visitor=visitor) for _ in range(2)] == [False, False]


def test_what_is_drawn_is_drawn_anew(shop: Shop) -> None:
    assert [shop.cached(sampled=True) for _ in range(2)] == [False, False]
    assert not shop.cached()
    assert shop.cached()


def test_requests_are_not_deterministic_unless_they_say_so() -> None:
    assert not Request().deterministic


def test_who_changes_an_answer_changes_no_other(shop: Shop) -> None:
    shop.ask().result.lines.append("spoilt")
    shop.ask().result.lines.append("spoilt")
    assert shop.ask().result.lines == ["hey"]


@pytest.mark.parametrize("failure", [InvalidInput("no"), Cancelled(), RuntimeError("boom")])
def test_only_answers_are_kept(shop: Shop, failure: BaseException) -> None:
    shop.failure = failure
    with pytest.raises((SuiteError, Cancelled)):
        shop.ask()
    shop.failure = None
    assert not shop.cached()


def test_a_result_that_cannot_be_pickled_is_not_kept(shop: Shop) -> None:
    shop.endpoint = Endpoint(lock_in_result, Echo, {"text": str})
    assert [shop.cached() for _ in range(2)] == [False, False]


def lock_in_result(request: Echo, context: Context) -> Iterator[Event]:
    yield Done(threading.Lock(), RUN)


# -- how long an answer is right -----------------------------------------------------------------------


def test_a_change_of_what_is_offered_drops_all_answers(shop: Shop) -> None:
    shop.answers.expect("echo", Echo(text="an example"))
    for text in ("hey", "an example"):
        shop.ask(text)
        assert shop.cached(text)
    shop.offer = Offer((("other", "", True), ("tiny", "1", True)), ("mine@abc",))
    shop.now += OFFER_SECONDS
    for text in ("hey", "an example"):
        assert not shop.cached(text)
        assert shop.cached(text)


def test_an_answer_that_was_computed_across_a_change_is_not_kept(shop: Shop) -> None:
    def change() -> None:
        shop.offer = Offer((("tiny", "1", True),), ("mine@def",))
        shop.now += OFFER_SECONDS

    shop.ask("another")  # so that what was offered before is known
    shop.meanwhile = change
    shop.ask()
    shop.meanwhile = lambda: None
    assert not shop.cached()
    assert shop.cached()


@pytest.mark.parametrize(
    ("run", "kept"),
    [
        ({"revision": "2"}, False),  # a revision that a request named: it may be no commit
        ({"checkpoint": "gone"}, False),
        ({"checkpoint": "other", "revision": "whichever is on disk"}, True),
        ({"adapter": "mine@abc"}, True),
        ({"adapter": "mine@abd"}, False),  # a folder that the admin named, which nobody watches
    ],
)
def test_kept_is_what_came_from_what_is_offered(shop: Shop, run: dict[str, str], kept: bool) -> None:
    shop.run = RUN.model_copy(update=run)
    shop.ask()
    assert shop.cached() == kept


def test_the_offer_changes_with_the_default_and_with_an_adapters_weights() -> None:
    class Catalog(list[Any]):
        def why_not(self, checkpoint: Any, named: bool) -> str:
            assert not named
            return "offline" if checkpoint.id in offline else ""

    offline = {"hub/x"}
    adapters = [SimpleNamespace(name="topics", revision="aaa")]
    catalog = Catalog(SimpleNamespace(id=name, revision="1") for name in ("hub/x", "tiny"))
    runtime = cast(Runtime, SimpleNamespace(catalog=catalog, adapters=adapters))
    seen = [offer_of(runtime)]
    assert offer_of(runtime) == seen[0]
    offline.clear()
    seen.append(offer_of(runtime))
    adapters[0].revision = "bbb"
    seen.append(offer_of(runtime))
    catalog.append(SimpleNamespace(id="new", revision="1"))
    seen.append(offer_of(runtime))
    assert len(set(seen)) == 4


def test_an_answer_nobody_asks_for_is_forgotten(shop: Shop) -> None:
    shop.ask("one")
    shop.ask("two")
    shop.now += STORED_SECONDS - 1
    assert shop.cached("two")
    shop.now += 2
    assert not shop.cached("one")
    assert shop.cached("two")
    shop.now += STORED_SECONDS + 1
    shop.ask("three")
    assert shop.answers.report()["answers"] == 1


# -- room ----------------------------------------------------------------------------------------------


def test_zero_keeps_examples_alone() -> None:
    shop = Shop(0)
    shop.answers.expect("echo", Echo(text="an example"))
    assert [shop.cached() for _ in range(2)] == [False, False]
    assert [shop.cached("an example") for _ in range(2)] == [False, True]


def test_bytes_are_bounded_and_the_least_recently_used_go_first() -> None:
    shop = Shop(20_000)
    texts = [str(number) * 2000 for number in range(9)]
    shop.ask(texts[0])
    for text in texts[1:]:
        shop.ask(text)
        assert shop.cached(texts[0])
        assert 0 < shop.answers.report()["bytes"] <= 20_000
    assert shop.cached(texts[-1])
    assert not shop.cached(texts[1])
    assert not shop.cached("x" * 20_000)
    assert not shop.cached("x" * 20_000), "one answer must not push out all others"


def test_the_number_is_bounded() -> None:
    shop = Shop(10**9)
    for number in range(MOST_ANSWERS + 10):
        shop.ask(str(number))
    assert shop.answers.report()["answers"] == MOST_ANSWERS
    assert not shop.cached("0")


def test_the_bytes_are_those_of_what_is_kept(shop: Shop) -> None:
    for number in range(1, 100):
        shop.ask("x" * number, visitor=ANN if number % 2 else BOB)
        shop.ask("hey")
    assert shop.answers.report()["bytes"] == sum(len(pickled) for pickled, _ in shop.answers._own.values())


# -- examples ------------------------------------------------------------------------------------------


def test_the_answer_to_an_example_is_everybodys(shop: Shop) -> None:
    shop.answers.expect("echo", Echo(text="hey", sampled=True))
    assert list(shop.answers.pending()) == [("echo", {"text": "hey", "model": "", "sampled": True})]
    assert not shop.cached(sampled=True)
    assert list(shop.answers.pending()) == []
    for visitor in (ANN, BOB, "1.2.3.5/"):
        assert shop.cached(visitor=visitor, sampled=True)
    assert shop.computed == ["hey"]


def test_an_example_makes_no_other_answer_everybodys(shop: Shop) -> None:
    shop.answers.expect("echo", Echo(text="hey"))
    shop.ask("private")
    assert not shop.cached("private", visitor=BOB)


def test_a_failed_example_stays_pending(shop: Shop) -> None:
    shop.answers.expect("echo", Echo(text="hey"))
    shop.failure = InvalidInput("no")
    with pytest.raises(InvalidInput):
        shop.ask()
    assert len(list(shop.answers.pending())) == 1
