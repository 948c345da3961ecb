"""The masked language model says what transformers' `fill-mask` pipeline says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from transformers import pipeline

from shared.engines.compute import RunHere
from shared.engines.encoders import masked_lm
from shared.engines.encoders.masked_lm import TorchMaskedLM, memory_bytes
from shared.engines.protocols import FilledToken
from shared.errors import Cancelled, InvalidInput, SuiteError
from shared.settings import Settings
from tests.tiny_checkpoints.decoders import gpt2
from tests.tiny_checkpoints.encoders import bert_mlm, roberta_mlm
from tests.tiny_checkpoints.entry import entry

T = TypeVar("T")
Made = tuple[TorchMaskedLM, Any]


@pytest.fixture(scope="module", params=[bert_mlm, roberta_mlm], ids=["BERT", "RoBERTa"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An engine, and the pipeline on the same folder."""
    folder = request.param(tmp_path_factory.mktemp("mlm"))
    return load(folder), pipeline("fill-mask", model=str(folder))


def load(folder: Path, **changes: Any) -> TorchMaskedLM:
    return masked_lm.load(entry(**changes), folder, Settings(), lambda *_: None)


def same(found: list[FilledToken], expected: list[dict[str, Any]]) -> None:
    assert [(token.id, token.text) for token in found] == [(one["token"], one["token_str"]) for one in expected]
    assert [token.probability for token in found] == pytest.approx([one["score"] for one in expected], abs=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "The {} of France is Paris.",
        "{}",
        "{} is a film that I hated.",
        "Der Fluß ist {} und schön 🙂. 生活就像一盒巧克力。",
        "It was a{}.",
    ],
)
def test_one_mask_is_filled_as_the_pipeline_fills_it(made: Made, text: str) -> None:
    engine, fill = made
    text = text.format(engine.mask_token)
    (found,) = engine.fill(text, 7)
    same(found, fill(text, top_k=7))


def test_several_masks_give_a_list_each(made: Made) -> None:
    engine, fill = made
    text = f"The {engine.mask_token} of France is {engine.mask_token}, and {engine.mask_token} is in Germany."
    found = engine.fill(text, 5)
    assert len(found) == 3
    for mine, expected in zip(found, fill(text, top_k=5), strict=True):
        same(mine, expected)


def test_either_way_to_write_a_mask_is_understood(made: Made) -> None:
    engine, fill = made
    own = f"The {engine.mask_token} of France is {engine.mask_token}."
    for text in (
        "The [MASK] of France is [MASK].",
        "The <mask> of France is <mask>.",
        "The [MASK] of France is <mask>.",
    ):
        assert engine.fill(text, 4) == engine.fill(own, 4)
        assert engine.count_tokens([text]) == engine.count_tokens([own])
    same(engine.fill("The [MASK] of France is <mask>.", 4)[1], fill(own, top_k=4)[1])


def test_probabilities_are_over_the_whole_vocabulary(made: Made) -> None:
    engine, _ = made
    (found,) = engine.fill(f"The {engine.mask_token}.", 100_000)
    assert len(found) == engine.model.config.vocab_size
    assert sum(token.probability for token in found) == pytest.approx(1, abs=1e-5)
    assert [t.probability for t in found] == sorted((t.probability for t in found), reverse=True)


@pytest.mark.parametrize("text", ["no mask here", "[mask]", "<MASK>", " "])
def test_a_text_without_a_mask_is_refused(made: Made, text: str) -> None:
    engine, _ = made
    with pytest.raises(InvalidInput) as refused:
        engine.fill(text, 3)
    assert refused.value.field == "text"
    assert engine.mask_token in refused.value.message


def test_a_text_longer_than_the_window_is_refused(made: Made) -> None:
    engine, fill = made
    assert engine.max_tokens == 512
    room = 512 - 3  # two markers and the mask
    fits = f"{'. ' * room}{engine.mask_token}"
    while engine.count_tokens([fits])[0] > 510:
        fits = fits[2:]
    (found,) = engine.fill(fits, 3)
    same(found, fill(fits, top_k=3))
    with pytest.raises(InvalidInput) as refused:
        engine.fill(". . . " + fits, 3)
    assert refused.value.field == "text"
    assert "512" in refused.value.message
    assert engine.mask_token in refused.value.message


def test_a_request_is_one_step_and_can_be_cancelled(made: Made) -> None:
    engine, _ = made
    taken = 0

    def compute(step: Callable[[], T], /) -> T:
        nonlocal taken
        taken += 1
        return step()

    engine.fill("The [MASK] of the [MASK].", 3, RunHere(compute))
    assert taken == 1

    def gone(step: Callable[[], T], /) -> T:
        raise Cancelled

    with pytest.raises(Cancelled):
        engine.fill("The [MASK].", 3, RunHere(gone))


def test_a_mask_is_one_token_of_those_counted(made: Made) -> None:
    engine, _ = made
    assert engine.count_tokens([engine.mask_token, ""]) == [1, 0]
    assert engine.count_tokens([]) == []


def test_memory_is_known_before_loading(made: Made) -> None:
    engine, _ = made
    assert engine.nbytes == memory_bytes(entry(parameters=engine.model.num_parameters()))
    assert engine.name == "torch-fp32"


def test_a_decoder_has_no_masks(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"'gpt2'.*filling masks"):
        load(gpt2(tmp_path))
