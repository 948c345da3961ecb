"""The answer cache as visitors meet it: through a suite with the settings of every user."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gradio_client import Client

from shared.settings import Settings
from shared.suite import Suite, serve
from tests.test_privacy import Visitor


@pytest.fixture(scope="module")
def keeping() -> Iterator[Suite]:
    """A suite that keeps answers, which the tests' common one does not."""
    running = serve(Settings(port=0, warm_examples=False, spaces=("classification", "generation")), block=False)
    yield running
    running.close()


def test_the_same_question_of_the_same_visitor_is_answered_from_before(keeping: Suite) -> None:
    ann, bob = Client(keeping.url, verbose=False), Client(keeping.url, verbose=False)
    text = "The striker scored twice."
    first, again = (ann.predict(text, "sports, cooking", api_name="/zero_shot") for _ in range(2))
    assert (first[1]["cached"], again[1]["cached"]) == (False, True)
    assert again[0] == first[0]
    assert {**again[1], "cached": False} == first[1]
    assert bob.predict(text, "sports, cooking", api_name="/zero_shot")[1]["cached"] is False


def test_a_greedy_text_is_kept_and_a_drawn_one_is_not(keeping: Suite) -> None:
    client = Client(keeping.url, verbose=False)
    for sampled in (False, True):
        asked = {"prompt": "Once upon a time", "max_new_tokens": 8, "do_sample": sampled, "api_name": "/generate"}
        client.predict(**asked)
        job = client.submit(**asked)
        text, run = job.result()
        assert run["cached"] is not sampled
        assert run["new_tokens"] == 8
        if not sampled:
            assert [output[0] for output in job.outputs()] == [text], "it comes at once and whole"


def test_the_page_says_that_an_answer_is_stored(keeping: Suite) -> None:
    visitor = Visitor(keeping)
    assert "stored answer" not in visitor.click("sentiment-run", Text="What a lovely day this was.")
    assert "stored answer" in visitor.click("sentiment-run", Text="What a lovely day this was.")
    chats = [visitor.click("chat-run", Message="Say hello.", New_tokens=4)]
    visitor.click("chat-clear")
    chats.append(visitor.click("chat-run", Message="Say hello.", New_tokens=4))
    assert ["stored answer" in chat for chat in chats] == [False, True]


def test_the_report_counts_them(keeping: Suite) -> None:
    client = Client(keeping.url, verbose=False)
    for _ in range(2):
        client.predict("A dull film.", api_name="/sentiment")
    report, run = client.predict(api_name="/models")
    assert report["endpoints"]["sentiment"]["cached"] >= 1
    assert run["cached"] is False
    assert client.predict(api_name="/models")[1]["cached"] is False
