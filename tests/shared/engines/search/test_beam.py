"""Beam search gives what transformers' own gives, on small models with random weights."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from shared.engines.search.beam import Hypothesis, beam_search

VOCABULARY = 40
PROMPTS = [[5, 9, 17], [21, 30, 8], [3, 3, 11], [39, 1, 2]]


@pytest.fixture(scope="module", params=range(3))
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    """A causal LM of a few thousand parameters; peaked enough that scores do not tie."""
    torch.manual_seed(request.param)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.7,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@torch.inference_mode()
def search(
    model: LlamaForCausalLM,
    prompts: list[list[int]],
    end_ids: list[int],
    num_beams: int,
    limits: list[int],
    penalty: float,
    early_stopping: bool = False,
) -> list[Hypothesis]:
    """Our beam search over the model with its key-value cache, as an engine would drive it."""
    cache = DynamicCache(config=model.config)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1].log_softmax(-1)

    def advance(tokens: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
        cache.reorder_cache(cast(torch.LongTensor, origin))
        return forward(tokens[:, None])

    return beam_search(
        forward(torch.tensor(prompts)),
        advance,
        end_ids=end_ids,
        num_beams=num_beams,
        max_new_tokens=limits,
        length_penalty=penalty,
        early_stopping=early_stopping,
    )


def generate(
    model: LlamaForCausalLM,
    prompt: list[int],
    end_ids: list[int],
    num_beams: int,
    limit: int,
    penalty: float,
    early_stopping: bool = False,
) -> Hypothesis:
    """The same by transformers."""
    output = cast(Any, model).generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=num_beams,
        do_sample=False,
        early_stopping=early_stopping,
        length_penalty=penalty,
        max_new_tokens=limit,
        eos_token_id=end_ids,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    return Hypothesis(output.sequences[0, len(prompt) :].tolist(), float(output.sequences_scores[0]))


@pytest.mark.parametrize(
    ("num_beams", "end_ids", "penalty"), [(2, [7], 1.0), (3, [7, 12], 0.0), (4, [7, 12, 25], 1.0), (4, [7], 2.0)]
)
def test_agrees_with_transformers(model: LlamaForCausalLM, num_beams: int, end_ids: list[int], penalty: float) -> None:
    limit = 10
    found = search(model, PROMPTS, end_ids, num_beams, [limit] * len(PROMPTS), penalty)
    for prompt, ours in zip(PROMPTS, found, strict=True):
        theirs = generate(model, prompt, end_ids, num_beams, limit, penalty)
        assert ours.tokens == theirs.tokens
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_stops_early_as_transformers_does(model: LlamaForCausalLM, penalty: float) -> None:
    ends = [7, 12, 25]
    found = search(model, PROMPTS, ends, 3, [10] * len(PROMPTS), penalty, early_stopping=True)
    for prompt, ours in zip(PROMPTS, found, strict=True):
        assert ours.tokens == generate(model, prompt, ends, 3, 10, penalty, early_stopping=True).tokens


def test_stopping_early_makes_a_difference(model: LlamaForCausalLM) -> None:
    late, early = (
        [search(model, PROMPTS, [end], 4, [12] * 4, 2.0, early_stopping) for end in range(1, 20)]
        for early_stopping in (False, True)
    )
    assert late != early


def test_the_models_do_end(model: LlamaForCausalLM) -> None:
    """Otherwise the agreement above would say nothing of finished beams."""
    found = [row for end in range(1, 20) for row in search(model, PROMPTS, [end], 4, [12] * 4, 1.0)]
    assert any(len(row.tokens) < 12 for row in found)
    assert any(len(row.tokens) == 12 for row in found)


def test_ends_and_limits_differ_between_rows(model: LlamaForCausalLM) -> None:
    """Rows leave one by one, and each still gets what it gets alone."""
    limits = [1, 9, 4, 12]
    together = search(model, PROMPTS, [7, 12], 3, limits, 1.0)
    for prompt, limit, ours in zip(PROMPTS, limits, together, strict=True):
        assert len(ours.tokens) <= limit
        theirs = generate(model, prompt, [7, 12], 3, limit, 1.0)
        assert ours.tokens == theirs.tokens


def test_rows_that_are_done_cost_nothing() -> None:
    """A row whose beams cannot improve is missing from the next call."""
    sizes = []
    sure_to_end = torch.full((10,), -20.0)
    sure_to_end[[1, 2, 3]] = torch.tensor([-0.01, -6.0, -7.0])
    never_ends = torch.full((10,), -20.0)
    never_ends[[4, 5, 6]] = torch.tensor([-0.5, -1.5, -2.0])

    def advance(tokens: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
        sizes.append(len(origin))
        assert origin.shape == tokens.shape
        return torch.stack([never_ends if token in (4, 5, 6) else sure_to_end for token in tokens.tolist()])

    found = beam_search(
        torch.stack([sure_to_end, never_ends]), advance, end_ids=[1], num_beams=2, max_new_tokens=[8, 8]
    )
    assert found[0].tokens == [1]
    assert len(found[1].tokens) == 8
    assert sizes[0] == 4
    assert sizes[-1] == 2


def test_no_rows() -> None:
    assert beam_search(torch.zeros(0, 9), lambda t, o: t, end_ids=[1], num_beams=2, max_new_tokens=[]) == []


def test_refuses_more_beams_than_the_vocabulary_can_fill() -> None:
    with pytest.raises(ValueError, match="vocabulary of 8 tokens"):
        beam_search(torch.zeros(1, 7), lambda t, o: t, end_ids=[1], num_beams=4, max_new_tokens=[3])


def test_refuses_an_empty_answer() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        beam_search(torch.zeros(1, 9), lambda t, o: t, end_ids=[1], num_beams=2, max_new_tokens=[0])
