"""The fast engine gives what the reference gives, whatever is computed beside it, and forgets no conversation."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OpenAIGPTConfig

from shared.checkpoints.catalog import Catalog
from shared.engines.compute import all_of, run_here
from shared.engines.decoders import batched as batched_module
from shared.engines.decoders import reference as reference_module
from shared.engines.decoders.architectures import architecture_of
from shared.engines.decoders.batched_engine import BatchedCausalLM
from shared.engines.decoders.decoding import Chunk, Completion, KeyValueCache
from shared.engines.decoders.reference import TorchCausalLM
from shared.engines.kernels.likeliest import likeliest
from shared.engines.packed import kernel_choice
from shared.engines.protocols import Sampling
from shared.errors import Cancelled, InvalidInput, WeightsCorrupt
from shared.scheduling.lane import Lane, Timing
from shared.settings import Settings
from tests.shared.engines.decoders.test_reference import END, byte_tokenizer
from tests.shared.engines.packed.test_weights import quantised
from tests.tiny_checkpoints import decoders
from tests.tiny_checkpoints.entry import entry
from tests.tiny_checkpoints.weights import renamed, seeded

WINDOW = 200
SOON = 60.0


def tiny_llama(seed: int, heads: int = 4, kv_heads: int = 2) -> Any:
    """A Llama in float32 with one matrix for both embeddings; peaked enough that scores do not tie."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=256,
        initializer_range=0.7,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=END,
    )
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:  # all ones otherwise, which would hide where they belong
            parameter.data.uniform_(0.5, 1.5)
    return model


def tiny_gpt2(seed: int, **changes: Any) -> Any:
    """A GPT-2 in float32 with biases, as many positions as its window has, and an inner width of its own."""
    options: dict[str, Any] = {"vocab_size": 257, "n_positions": WINDOW, "n_embd": 32, "n_inner": 48, "n_layer": 2}
    options |= {"n_head": 4, "bos_token_id": None, "eos_token_id": END, "pad_token_id": 0, **changes}
    config = GPT2Config(**options)
    return seeded(GPT2LMHeadModel(config), seed, std=0.7)


MODELS: dict[str, Callable[[int], Any]] = {
    "llama": tiny_llama,
    "llama, a head of keys each": lambda seed: tiny_llama(seed, 4, 4),
    "llama, one head of keys": lambda seed: tiny_llama(seed, 4, 1),
    "gpt2": tiny_gpt2,
}

PUBLISHED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "fp32": lambda weight: weight,
    "bf16": lambda weight: weight.bfloat16().float(),
    "int8": lambda weight: quantised(weight, 16, 15),
}
"""What a publisher did to the weights, by the engine's name for how it keeps them."""


def published(model: Any, form: str) -> Any:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            transposed = ".c_" in name  # GPT-2 has them (in, out)
            weight = PUBLISHED[form](parameter.data.T.contiguous() if transposed else parameter.data)
            parameter.data = weight.T.contiguous() if transposed else weight
    return model


def batched(model: Any) -> BatchedCausalLM:
    found = architecture_of(model.config)
    assert found is not None
    network, shape = found
    return BatchedCausalLM(network(network.pack(model.state_dict(), shape), shape), byte_tokenizer(), WINDOW, [END])


def reference(model: Any) -> TorchCausalLM:
    return TorchCausalLM(model, byte_tokenizer(), WINDOW)


def written(engine: Any, prompt: Sequence[int], sampling: Sampling, compute: Any = run_here) -> list[int]:
    return [token.id for token in engine.generate(prompt, sampling, compute)]


class Turns:
    """A visitor's way to a lane."""

    def __init__(self, lane: Lane, owner: str, cancel: threading.Event | None = None) -> None:
        self.owner, self._lane, self._cancel = owner, lane, cancel or threading.Event()

    def __call__(self, step: Callable[[], Any], /) -> Any:
        return self._lane.run(self.owner, step, self._cancel, Timing())

    def submit(self, kernel: Any, item: Any, /) -> Any:
        return self._lane.submit(self.owner, kernel, item, self._cancel, Timing())

    def map(self, kernel: Any, items: Sequence[Any], /) -> Any:
        return all_of([self.submit(kernel, item) for item in items])


@pytest.fixture
def lane() -> Iterator[Lane]:
    lane = Lane(2, width=2)
    yield lane
    lane.close()


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param](0)


# -- what the reference gives ------------------------------------------------------------------------

PROMPTS = st.lists(st.integers(1, 255), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(
    prompt=PROMPTS,
    seed=st.integers(0, 2),
    architecture=st.sampled_from(list(MODELS)),
    penalty=st.sampled_from([1.0, 1.3]),
    form=st.sampled_from(list(PUBLISHED)),
)
def test_greedy_and_sampled_tokens_are_the_references(
    prompt: list[int], seed: int, architecture: str, penalty: float, form: str
) -> None:
    """However the weights are kept: none of them is rounded."""
    model = published(MODELS[architecture](seed), form)
    fast, slow = batched(model), reference(model)
    assert fast.name == f"compiled-{form}"
    greedy = Sampling(max_new_tokens=12, repetition_penalty=penalty)
    sampled = Sampling(max_new_tokens=12, do_sample=True, top_k=20, top_p=0.9, seed=seed, repetition_penalty=penalty)
    for sampling in (greedy, sampled):
        ours = list(fast.generate(prompt, sampling))
        if form == "int8":
            assert_logits_alike(fast, slow, prompt, ours)
            continue
        theirs = list(slow.generate(prompt, sampling))
        assert [token.id for token in ours] == [token.id for token in theirs]
        assert [t.probability for t in ours] == pytest.approx([t.probability for t in theirs], abs=1e-4)
        assert [t.text for t in ours] == [t.text for t in theirs]


def assert_logits_alike(fast: Any, slow: Any, prompt: list[int], tokens: list[Any]) -> None:
    """Beside integers, activations have 16 bits: where two tokens are as likely as each other, that decides.

    So the reference's text is not asked for, but its logits along this one.
    """
    for place, token in enumerate(tokens):
        ids = [*prompt, *(t.id for t in tokens[:place])]
        ours, theirs = fast.next_token_logits(ids), slow.next_token_logits(ids)
        assert np.abs(ours - theirs).max() < 0.003 * np.ptp(theirs)
        probabilities = torch.from_numpy(ours).softmax(-1)
        assert token.probability == pytest.approx(float(probabilities[token.id]), abs=0.003)


@settings(max_examples=25, deadline=None)
@given(prompt=PROMPTS, num_beams=st.integers(2, 4), architecture=st.sampled_from(list(MODELS)))
def test_beams_are_the_references(prompt: list[int], num_beams: int, architecture: str) -> None:
    model = MODELS[architecture](1)
    assert batched(model).beam_search(prompt, 8, num_beams) == reference(model).beam_search(prompt, 8, num_beams)


@settings(max_examples=25, deadline=None)
@given(
    prompts=st.lists(st.text("abc ", min_size=1, max_size=60), min_size=1, max_size=5),
    front=st.sampled_from(["", "one two three four five: "]),
    labels=st.lists(st.text("xyz", min_size=1, max_size=6), min_size=1, max_size=5),
    architecture=st.sampled_from(["llama", "gpt2"]),
)
def test_label_likelihoods_are_the_references(
    prompts: list[str], front: str, labels: list[str], architecture: str
) -> None:
    """Labels side by side after one reading of the prompt: each as if it stood there alone."""
    model = MODELS[architecture](2)
    ours = batched(model).label_likelihoods([front + prompt for prompt in prompts], labels)
    theirs = reference(model).label_likelihoods([front + prompt for prompt in prompts], labels)
    for our_row, their_row in zip(ours, theirs, strict=True):
        assert [score.tokens for score in our_row] == [score.tokens for score in their_row]
        assert [score.total for score in our_row] == pytest.approx([score.total for score in their_row], abs=2e-3)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 16, 40])
def test_a_prompt_read_in_parts_gives_the_same_logits(model: Any, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    prompt = [(7 * i) % 251 + 1 for i in range(length)]
    expected = reference(model).next_token_logits(prompt)
    monkeypatch.setattr("shared.engines.decoders.decoding.STEP_TOKENS", 8)
    np.testing.assert_allclose(batched(model).next_token_logits(prompt), expected, atol=2e-4)


def test_the_window_ends_a_text_and_the_end_token_is_not_shown(model: Any) -> None:
    fast = batched(model)
    prompt = [5] * (WINDOW - 3)
    assert len(written(fast, prompt, Sampling(max_new_tokens=50))) <= 3
    assert written(fast, [5] * WINDOW, Sampling(max_new_tokens=50)) == []
    greedy = written(fast, [9, 8, 7], Sampling(max_new_tokens=1))
    ending = BatchedCausalLM(fast.decoder.network, byte_tokenizer(), WINDOW, greedy)
    assert written(ending, [9, 8, 7], Sampling(max_new_tokens=5)) == []


def test_learned_positions_are_used_to_the_last_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind the table in memory is no position, and compiled code does not ask."""
    fast, slow = batched(tiny_gpt2(0)), reference(tiny_gpt2(0))
    fast._ends = frozenset()  # every text goes on to the end of the window
    slow._eos = frozenset()
    positions: list[int] = []
    call = fast.decoder.network.states

    def noted(ids: Any, sequences: Any, logit_positions: Any) -> Any:
        positions.extend(sequences.positions.tolist())
        return call(ids, sequences, logit_positions)

    monkeypatch.setattr(fast.decoder.network, "states", noted)
    for room in (0, 1, 3):
        prompt = [(7 * i) % 251 + 1 for i in range(WINDOW - room)]
        found = written(fast, prompt, Sampling(max_new_tokens=50))
        assert len(found) == room
        assert found == written(slow, prompt, Sampling(max_new_tokens=50))
        assert fast.beam_search(prompt, 50, 3) == slow.beam_search(prompt, 50, 3)
        np.testing.assert_allclose(fast.next_token_logits(prompt), slow.next_token_logits(prompt), atol=2e-4)
    ours, theirs = (engine.label_likelihoods(["a" * (WINDOW - 4), "b"], ["xyzx", "y"]) for engine in (fast, slow))
    for our_row, their_row in zip(ours, theirs, strict=True):
        assert [one.total for one in our_row] == pytest.approx([one.total for one in their_row], abs=2e-3)
    assert max(positions) == WINDOW - 1
    with pytest.raises(InvalidInput):
        fast.next_token_logits([5] * (WINDOW + 1))
    with pytest.raises(IndexError):
        fast.last_state([5] * (WINDOW + 1))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("value", [float("nan"), 1e38])
def test_weights_that_give_no_numbers_are_said(architecture: str, value: float) -> None:
    broken = MODELS[architecture](0)
    for name, parameter in broken.named_parameters():
        if "norm.weight" in name or "ln_f.weight" in name:
            parameter.data[3] = value
    engine = batched(broken)
    for ask in (
        lambda: written(engine, [5, 6, 7], Sampling(max_new_tokens=4)),
        lambda: engine.next_token_logits([5, 6, 7]),
        lambda: engine.label_likelihoods(["a text"], ["one", "two"]),
        lambda: engine.beam_search([5, 6, 7], 4, 2),
    ):
        with pytest.raises(WeightsCorrupt, match="computes no numbers"):
            ask()


def test_what_is_no_number_is_not_looked_for_beyond_the_last() -> None:
    for place in (0, 3, 9):
        logits = np.zeros(10, np.float32)
        logits[place] = np.nan
        assert 0 <= likeliest(logits)[0] < 10


def test_a_token_that_there_is_not_is_refused(model: Any) -> None:
    """An added token of a tokenizer, say: compiled code would read what lies behind the matrix."""
    for prompt in ([3, 257, 5], [3, -1]):
        with pytest.raises(IndexError, match="of 257"):
            batched(model).next_token_logits(prompt)


# -- together ----------------------------------------------------------------------------------------


def requests(number: int) -> tuple[list[int], Sampling]:
    prompt = [(number * 37 + 11 * i) % 250 + 1 for i in range(3 + number * 5)]
    # Number 4 writes long enough to be stopped.
    most = 150 if number == 4 else 6 + number
    return prompt, Sampling(max_new_tokens=most, do_sample=bool(number % 2), seed=number)


@pytest.mark.parametrize("form", PUBLISHED)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_text_is_the_same_alone_and_in_company(
    form: str, architecture: str, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: greedy and with seeds, prompts of other lengths beside it, sequences joining and leaving."""
    monkeypatch.setattr("shared.engines.decoders.decoding.STEP_TOKENS", 24)
    fast = batched(published(MODELS[architecture](0), form))
    alone = [[(t.id, t.probability) for t in fast.generate(*requests(n))] for n in range(8)]
    sizes = []
    call = fast.decoder.forward

    def noted(caches: Any, chunks: Any) -> Any:
        sizes.append(len(chunks))
        return call(caches, chunks)

    monkeypatch.setattr(fast.decoder, "forward", noted)
    with ThreadPoolExecutor(8) as threads:
        begun = [
            threads.submit(
                lambda n=n: [(t.id, t.probability) for t in fast.generate(*requests(n), Turns(lane, f"visitor {n}"))]
            )
            for n in range(8)
        ]
        together = [one.result(SOON) for one in begun]
    assert together == alone
    assert max(sizes) > 1


def test_one_who_leaves_and_one_who_fails_harm_nobody(model: Any, lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = batched(model)
    expected = {n: written(fast, *requests(n)) for n in range(6)}
    cancel = threading.Event()
    consume = Completion.consume

    def failing(self: Completion, chunk: Chunk, logits: torch.Tensor) -> Any:
        if len(self._ids) == len(requests(3)[0]) + 2 and self._ids[:5] == requests(3)[0][:5]:
            raise RuntimeError("this sequence alone")
        if len(self._ids) == len(requests(4)[0]) + 2 and self._ids[:5] == requests(4)[0][:5]:
            cancel.set()
        return consume(self, chunk, logits)

    monkeypatch.setattr(Completion, "consume", failing)

    def ask(n: int) -> Any:
        found = []
        turns = Turns(lane, f"visitor {n}", cancel if n == 4 else None)
        try:
            for token in fast.generate(*requests(n), turns):
                found.append(token.id)  # noqa: PERF401 - the tokens before an error count too
        except (Cancelled, RuntimeError) as error:
            return type(error), found
        return found

    with ThreadPoolExecutor(6) as threads:
        answers = [one.result(SOON) for one in [threads.submit(ask, n) for n in range(6)]]
    assert answers[3][0] is RuntimeError
    assert answers[4][0] is Cancelled
    assert answers[4][1] == expected[4][: len(answers[4][1])]
    assert len(answers[4][1]) < len(expected[4])
    assert [answers[n] for n in (0, 1, 2, 5)] == [expected[n] for n in (0, 1, 2, 5)]


def test_a_batch_that_fails_as_a_whole_is_tried_row_by_row(
    model: Any, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = batched(model)
    expected = [written(fast, *requests(n)) for n in range(4)]
    call = fast.decoder.forward

    def only_one(caches: Any, chunks: Any) -> Any:
        if len(chunks) > 1:
            raise MemoryError
        return call(caches, chunks)

    monkeypatch.setattr(fast.decoder, "forward", only_one)
    with ThreadPoolExecutor(4) as threads:
        begun = [threads.submit(written, fast, *requests(n), Turns(lane, f"visitor {n}")) for n in range(4)]
        assert [one.result(SOON) for one in begun] == expected


def test_a_reader_who_wants_no_more_ends_the_row(model: Any, lane: Lane) -> None:
    """As when a page is closed between two tokens: the sequence leaves at its next step."""
    fast = batched(model)
    steps: list[int] = []
    call = fast.decoder.forward
    fast.decoder.forward = lambda caches, chunks: (steps.append(1), call(caches, chunks))[1]  # type: ignore[method-assign]
    tokens = fast.generate([3, 4, 5], Sampling(max_new_tokens=150), Turns(lane, "visitor"))
    next(tokens)
    tokens.close()  # pyright: ignore[reportAttributeAccessIssue] - it is a generator
    lane.close()
    assert len(steps) < 150


# -- what was read before ------------------------------------------------------------------------------


def read_by(engine: BatchedCausalLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each chunk that the engine reads from now on."""
    read: list[int] = []
    call = engine.decoder.forward

    def noted(caches: Sequence[KeyValueCache], chunks: Sequence[Chunk]) -> Any:
        read.extend(len(chunk.ids) for chunk in chunks)
        return call(caches, chunks)

    monkeypatch.setattr(engine.decoder, "forward", noted)
    return read


class Visitor:
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.submit, self.map = run_here.submit, run_here.map

    def __call__(self, step: Callable[[], Any], /) -> Any:
        return step()


def test_the_next_turn_reads_what_is_new_alone(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, ada, bob = batched(model), Visitor("ada"), Visitor("bob")
    first = list(range(1, 41))
    reply = written(fast, first, Sampling(max_new_tokens=5), ada)
    second = [*first, *reply, *range(60, 80)]
    expected = reference(model).next_token_logits(second)
    read = read_by(fast, monkeypatch)
    np.testing.assert_allclose(fast.next_token_logits(second, ada), expected, atol=2e-4)
    # The last token of the reply was written and never read.
    assert sum(read) == 20 + 1
    del read[:]
    np.testing.assert_allclose(fast.next_token_logits(second, bob), expected, atol=2e-4)
    assert sum(read) == len(second)


def test_examples_are_read_once_for_all_texts_and_for_the_next_ones(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, ada = batched(model), Visitor("ada")
    front = "good: yes. bad: no. fine: yes. awful: no. "
    read = read_by(fast, monkeypatch)
    fast.label_likelihoods([front + text for text in ("a:", "b:", "c:")], ["y", "n"], ada)
    assert sum(read) == len(front) + 3 * 2
    del read[:]
    fast.label_likelihoods([front + text for text in ("d:", "e:")], ["y", "n"], ada)
    assert sum(read) == 2 * 2


def test_no_more_is_kept_than_there_is_room_for(model: Any) -> None:
    fast = batched(model)
    one = KeyValueCache(fast.decoder.shape, 60).tensor.nbytes
    fast.prefixes.max_bytes = 3 * one
    for n in range(10):
        fast.next_token_logits([n + 1] * 60, Visitor(f"visitor {n}"))
        assert fast.prefixes.nbytes <= 3 * one
    assert fast.prefixes.longest("visitor 9", [10] * 60)[0] == 59
    assert fast.prefixes.longest("visitor 0", [1] * 60) == (0, None)
    fast.prefixes.limit(0)
    assert fast.prefixes.nbytes == 0


# -- where it cannot be used -----------------------------------------------------------------------------


def test_without_the_compiler_the_reference_answers(
    settings: Settings, weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Catalog.read().choose("", "text-generation")
    folder = weights(checkpoint.id)
    monkeypatch.setattr(reference_module, "load", lambda *_: "the reference")
    plain = settings.model_copy(update={"engines": "reference"})
    assert batched_module.load(checkpoint, folder, plain, lambda *_: None) == "the reference"
    assert batched_module.why_not(settings) == ""
    monkeypatch.setattr(kernel_choice, "_import_kernels", kernel_choice._import_kernels.__wrapped__)  # not cached
    for name in ("products", "compiling"):
        monkeypatch.delitem(sys.modules, f"shared.engines.kernels.{name}")
    monkeypatch.setitem(sys.modules, "numba", None)  # as Python has it for what cannot be imported
    assert batched_module.load(checkpoint, folder, settings, lambda *_: None) == "the reference"
    assert "numba" in batched_module.why_not(settings)


def loaded(folder: Path, cache: Path, **changes: Any) -> Any:
    own = Settings(cache_dir=cache, answer_cache=0)
    return batched_module.load(entry(context_window=1024, **changes), folder, own, lambda *_: None)


OTHERWISE: dict[str, dict[str, Any]] = {
    "another activation": {"activation_function": "gelu"},
    "scores that are not scaled": {"scale_attn_weights": False},
    "scores scaled by the layer too": {"scale_attn_by_inverse_layer_idx": True},
    "scores in another order": {"reorder_and_upcast_attn": True},
    "heads that are no multiple of four": {"n_embd": 24, "n_head": 4},
}


@pytest.mark.parametrize("changes", OTHERWISE.values(), ids=OTHERWISE)
def test_a_gpt2_of_another_make_is_left_to_the_reference(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = decoders.gpt2(tmp_path / "gpt2")
    vocabulary = GPT2Config.from_pretrained(folder).vocab_size
    model = tiny_gpt2(3, vocab_size=vocabulary, **changes)
    assert architecture_of(model.config) is None
    model.save_pretrained(folder)
    assert isinstance(loaded(folder, tmp_path), TorchCausalLM)
    assert architecture_of(tiny_gpt2(3).config) is not None
    assert architecture_of(OpenAIGPTConfig()) is None


@pytest.mark.parametrize("maker", [decoders.gpt2, decoders.dialogpt, decoders.llama_chat])
@pytest.mark.parametrize("output", ["as published", "another that is not told", "another"])
def test_a_folder_of_the_hub_gives_what_transformers_gives(
    maker: Callable[[Path], Path], output: str, tmp_path: Path
) -> None:
    """Whatever the config says, transformers does not tie two matrices that the file holds both."""
    from transformers import AutoModelForCausalLM

    folder = maker(tmp_path / "published")
    if output == "another":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    if output != "as published":
        weights = load_file(folder / "model.safetensors")
        own = seeded(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), 99).lm_head.weight
        weights["lm_head.weight"] = own.detach().clone()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    engine = loaded(folder, tmp_path)
    assert isinstance(engine, BatchedCausalLM)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert engine.name == ("compiled-bf16" if model.config.model_type == "llama" else "compiled-fp32")
    for text in ("Once upon a time, in a galaxy far, far", "El niño 🙂 baila 生活", "There were 12 moons. " * 20):
        ids = engine.tokenize(text)
        with torch.inference_mode():
            expected = model(torch.tensor([ids])).logits[0, -1]
        torch.testing.assert_close(torch.from_numpy(engine.next_token_logits(ids)), expected, atol=1e-4, rtol=0)


def test_gpt2_is_read_under_the_names_it_was_published_with(tmp_path: Path) -> None:
    """The first GPT-2 has no prefix before its names."""
    one = loaded(decoders.gpt2(tmp_path / "one"), tmp_path / "cache")
    folder = renamed(decoders.gpt2(tmp_path / "two"), {r"^transformer\.": ""})
    two = loaded(folder, tmp_path / "another cache")
    assert "wte.weight" in load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(one.next_token_logits([3, 4, 5]), two.next_token_logits([3, 4, 5]))


# -- the real weights ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(settings: Settings, weights: Callable[[str], Path]) -> Any:
    checkpoint = Catalog.read().choose("", "text-generation")
    return batched_module.load(checkpoint, weights(checkpoint.id), settings, lambda *_: None)


def test_the_real_weights_fit_and_know_paris(real: BatchedCausalLM) -> None:
    assert real.name == "compiled-int8"
    assert real.nbytes <= batched_module.memory_bytes(Catalog.read().choose("", "text-generation"))
    asked = real.chat_prompt([{"role": "user", "content": "What is the capital of France?"}])
    assert "Paris" in real.detokenize(written(real, asked, Sampling(max_new_tokens=12)))
    ((paris, tea),) = real.label_likelihoods(["The capital of France is"], [" Paris", " green tea"])
    assert paris.per_token > tea.per_token
    prompt = real.tokenize("Emoji: 🙂🎉👍🏽 日本語 Ünïcödé 🙂🎉")
    tokens = list(real.generate(prompt, Sampling(max_new_tokens=24, do_sample=True, seed=5)))
    whole = real.detokenize([token.id for token in tokens])
    assert whole.rstrip("\ufffd").startswith("".join(token.text for token in tokens).rstrip("\ufffd"))
    assert all(0 < token.probability <= 1 for token in tokens)
