"""Completion, chat and the next token, on the real weights."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from generation import SPACE
from generation.task import Completion, Distribution
from shared.engines.decoders.reference import TorchCausalLM
from shared.errors import Cancelled, InvalidInput, UnknownCheckpoint
from shared.events import Done, Partial
from shared.serving.context import Context
from shared.serving.endpoint import collect
from shared.serving.runtime import Runtime
from shared.serving.traffic import Traffic

LM = "SmolLM2-135M-Instruct"
STORY = "Once upon a time, in a galaxy far, far"


@pytest.fixture(scope="module")
def engine(runtime: Runtime) -> Iterator[TorchCausalLM]:
    with runtime.cache.hold(runtime.catalog.choose(LM, "text-generation")) as borrowed:
        yield borrowed.engine


def ask(endpoint: str, context: Context, **values: Any) -> Done[Any]:
    return collect(SPACE.endpoint(endpoint).run(values, context, Traffic()))


def borrows(context: Context) -> int:
    return sum(row["borrows"] for row in context.runtime.cache.report()["checkpoints"])


# -- completion ------------------------------------------------------------------------------------


def test_a_completion_streams_token_by_token(context: Context, engine: TorchCausalLM) -> None:
    events = SPACE.endpoint("generate").run({"prompt": STORY, "max_new_tokens": 10}, context, Traffic())
    texts = [event.result.text for event in events if isinstance(event, Partial)]
    done = ask("generate", context, prompt=STORY, max_new_tokens=10)
    assert len(texts) == len(done.result.tokens) == done.run.new_tokens == 10
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert texts[-1] == done.result.text
    assert done.result.text.startswith(" away")
    assert done.run.input_tokens == len(engine.tokenize(STORY))
    assert (done.result.context_used, done.result.context_window) == (done.run.input_tokens + 10, 8192)
    assert done.result.prompt == STORY
    assert done.result.outputs() == (done.result.text,)
    assert all(0 < token.probability <= 1 for token in done.result.tokens)


def test_greedy_needs_no_seed_and_sampling_follows_it(context: Context) -> None:
    greedy = {
        ask("generate", context, prompt=STORY, max_new_tokens=8, seed=seed, temperature=t).result.text
        for seed, t in ((0, 0.7), (1, 3.0))
    }
    assert len(greedy) == 1
    drawn = {"prompt": STORY, "max_new_tokens": 12, "do_sample": True, "temperature": 2.0, "top_p": 1.0, "top_k": 0}
    first, again, other = (ask("generate", context, **drawn, seed=seed).result.text for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_top_k_of_one_is_greedy(context: Context) -> None:
    greedy = ask("generate", context, prompt=STORY, max_new_tokens=6)
    drawn = ask("generate", context, prompt=STORY, max_new_tokens=6, do_sample=True, top_k=1, temperature=3.0)
    assert drawn.result.text == greedy.result.text


def test_a_stop_ends_within_a_token(context: Context) -> None:
    events = SPACE.endpoint("generate").run({"prompt": STORY, "max_new_tokens": 500}, context, Traffic())
    results = (event.result for event in events if isinstance(event, Partial))
    seen: Completion = next(result for result in results if len(result.tokens) == 3)
    context.cancel.set()
    before = borrows(context)
    with pytest.raises(Cancelled):
        list(results)
    # What was written before the Stop is still handed over; the reader may have been a few tokens behind.
    assert len(seen.tokens) < 50
    assert borrows(context) == before - 1


def test_leaving_gives_the_place_and_the_checkpoint_back(context: Context) -> None:
    before = borrows(context)
    events: Any = SPACE.endpoint("generate").run({"prompt": STORY}, context, Traffic())
    while not isinstance(next(events), Partial):
        continue
    assert borrows(context) == before + 1
    events.close()
    assert borrows(context) == before
    assert context.runtime.admission.report() == {"running": 0, "queued": 0}


def test_a_prompt_longer_than_the_window_is_refused_before_it_is_read(
    context: Context, engine: TorchCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "decoder", None)  # reading it would fail
    for endpoint in ("generate", "next_token"):
        with pytest.raises(InvalidInput, match=r"is 9,\d+ tokens long and .* context window of 8,192") as caught:
            ask(endpoint, context, prompt="word " * 9000)
        assert caught.value.field == "prompt"


def test_a_completion_ends_with_the_window(
    context: Context, engine: TorchCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "context_window", len(engine.tokenize(STORY)) + 4)
    done = ask("generate", context, prompt=STORY, max_new_tokens=100)
    assert done.run.new_tokens == 4
    assert done.result.context_used == done.result.context_window


def test_a_checkpoint_that_cannot_generate_is_refused_by_name(context: Context) -> None:
    for endpoint, first in (("generate", "prompt"), ("chat", "message"), ("next_token", "prompt")):
        with pytest.raises(UnknownCheckpoint, match="does not do") as caught:
            ask(endpoint, context, **{first: "x", "model": "all-MiniLM-L6-v2"})
        assert caught.value.field == "model"


# -- chat ------------------------------------------------------------------------------------------


def test_chat_answers_in_the_checkpoints_own_template(context: Context) -> None:
    done = ask("chat", context, message="What is the capital of France?", max_new_tokens=16)
    assert "Paris" in done.result.text
    assert done.result.prompt.endswith(
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "<|im_end|>" not in done.result.text
    assert done.result.dropped_turns == 0
    assert done.result.context_used == done.run.input_tokens + done.run.new_tokens


def test_earlier_turns_and_the_system_prompt_are_read(context: Context) -> None:
    parts = [{"type": "text", "text": "Nice to meet you, "}, {"type": "text", "text": "Zebedee!"}]
    history = [
        {"role": "user", "content": "My name is Zebedee."},
        {"role": "assistant", "content": parts},
    ]
    done = ask(
        "chat", context, message="What is my name?", history=history, system_prompt="Be brief.", max_new_tokens=12
    )
    assert "Zebedee" in done.result.text
    assert done.result.prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nMy name is Zebedee.<|im_end|>\n"
        "<|im_start|>assistant\nNice to meet you, Zebedee!<|im_end|>\n"
        "<|im_start|>user\nWhat is my name?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_the_page_adds_to_a_message_is_ignored(context: Context) -> None:
    history = [{"role": "user", "content": "Hi.", "metadata": {"title": None}, "options": None}]
    done = ask("chat", context, message="Bye.", history=history, max_new_tokens=1)
    assert "Hi.<|im_end|>" in done.result.prompt


def turns(number: int) -> list[dict[str, str]]:
    return [
        {"role": ("user", "assistant")[i % 2], "content": f"turn number {i} says something of some length"}
        for i in range(number)
    ]


def test_the_oldest_turns_are_dropped_when_the_window_is_full(
    context: Context, engine: TorchCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "context_window", 160)
    values = {"message": "the last question", "system_prompt": "Always rhyme.", "max_new_tokens": 20}
    result = ask("chat", context, history=turns(20), **values).result
    assert 0 < result.dropped_turns < 20
    assert result.prompt.startswith("<|im_start|>system\nAlways rhyme.<|im_end|>\n")
    assert "<|im_start|>user\nthe last question<|im_end|>\n<|im_start|>assistant\n" in result.prompt
    kept = [f"turn number {i} says" in result.prompt for i in range(20)]
    assert kept == [False] * result.dropped_turns + [True] * (20 - result.dropped_turns)
    assert result.context_used <= 160
    # One turn more would not have fitted beside the reply.
    system, last = {"role": "system", "content": "Always rhyme."}, {"role": "user", "content": "the last question"}
    one_more = engine.chat_prompt([system, *turns(20)[result.dropped_turns - 1 :], last])
    assert len(one_more) > 160 - 20


def test_a_conversation_that_fits_keeps_all_of_it(context: Context) -> None:
    assert (
        ask("chat", context, message="the last question", history=turns(20), max_new_tokens=1).result.dropped_turns == 0
    )


def test_a_message_too_long_by_itself_is_refused_by_name(
    context: Context, engine: TorchCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "context_window", 100)
    with pytest.raises(InvalidInput, match="too long even without the earlier turns") as caught:
        ask("chat", context, message="word " * 200, history=turns(4))
    assert caught.value.field == "message"


# -- next token ------------------------------------------------------------------------------------

DESSERT = "For dessert I would like a slice of"


def by_hand(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities before and after, as the course computes them (the token that crosses `top_p` is in)."""
    logits = logits.astype(np.float64)
    before = np.exp(logits - logits.max())
    before /= before.sum()
    after = np.exp((logits - logits.max()) / temperature)
    after /= after.sum()
    order = np.argsort(-after, kind="stable")
    if top_k:
        after[order[top_k:]] = 0
        after /= after.sum()
    if top_p < 1:
        sums = np.cumsum(after[order])
        after[order[int(np.searchsorted(sums, top_p)) + 1 :]] = 0
    return before, after / after.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 0, 1.0), (1.0, 5, 1.0), (1.0, 0, 0.5), (0.7, 50, 0.9), (3.0, 2, 0.3)],
)
def test_the_distribution_agrees_with_one_by_hand(
    context: Context, engine: TorchCausalLM, temperature: float, top_k: int, top_p: float
) -> None:
    values = {"prompt": DESSERT, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    found: Distribution = ask("next_token", context, **values).result
    before, after = by_hand(engine.next_token_logits(engine.tokenize(DESSERT)), temperature, top_k, top_p)
    assert found.kept == np.count_nonzero(after)
    assert found.kept_mass == pytest.approx(before[after > 0].sum(), abs=1e-4)
    assert [t.before for t in found.tokens] == pytest.approx([before[t.id] for t in found.tokens], abs=1e-5)
    assert [t.after for t in found.tokens] == pytest.approx([after[t.id] for t in found.tokens], abs=1e-4)
    assert [t.before for t in found.tokens] == pytest.approx(sorted(before.tolist())[:-21:-1], abs=1e-5)
    assert [t.text for t in found.tokens] == [engine.detokenize([t.id]) for t in found.tokens]


def test_the_greedy_token_is_the_first_of_the_list(context: Context) -> None:
    found: Distribution = ask("next_token", context, prompt=DESSERT).result
    (greedy,) = ask("generate", context, prompt=DESSERT, max_new_tokens=1).result.tokens
    assert found.tokens[0].id == greedy.id
    assert found.tokens[0].before == pytest.approx(greedy.probability, abs=1e-4)
    assert found.kept_mass == pytest.approx(1, abs=1e-4)


def test_the_api_gets_plain_rows(context: Context) -> None:
    (shown,) = ask("next_token", context, prompt="The capital of France is", top_k=2).result.outputs()
    assert set(shown) == {"tokens", "kept", "kept_mass"}
    assert shown["kept"] == 2
    assert len(shown["tokens"]) == 20
    assert shown["tokens"][0]["token"] == " Paris"
    assert sum(row["after"] for row in shown["tokens"]) == pytest.approx(1, abs=1e-4)
    assert [row["after"] for row in shown["tokens"][2:]] == [0] * 18


def test_examples_of_the_space_are_valid(context: Context) -> None:
    for name, examples in SPACE.examples.items():
        for example in examples:
            SPACE.endpoint(name).request.model_validate(example["inputs"], context={"settings": context.settings})
