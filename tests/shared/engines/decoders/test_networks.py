"""GPT-2, DialoGPT and Llama folders of safetensors: our decoding loop against transformers' own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared.engines.compute import run_here
from shared.engines.decoders import likelihood, reference
from shared.engines.decoders.reference import TorchCausalLM, memory_bytes
from shared.engines.protocols import Sampling
from shared.errors import InvalidInput, SuiteError, WeightsCorrupt
from shared.settings import Settings
from tests.tiny_checkpoints.decoders import END_OF_TEXT, TURNS, dialogpt, gpt2, llama_chat
from tests.tiny_checkpoints.encoders import bert_mlm, bert_qa
from tests.tiny_checkpoints.entry import entry
from tests.tiny_checkpoints.weights import renamed, sharded

ENTRIES: dict[str, dict[str, Any]] = {
    "gpt2": {"context_window": 1024},
    "dialogpt": {"context_window": 1024, "chat_template": TURNS, "system_prompt": False},
    "llama_chat": {"context_window": 2048},
}
MAKERS = {"gpt2": gpt2, "dialogpt": dialogpt, "llama_chat": llama_chat}

PROMPTS = [
    "Once upon a time, in a galaxy far, far",
    "I can't believe",
    "El niño 🙂 baila 生活",
    "In 1971 there were 12 moons. " * 20,
]


def load(folder: Path, **changes: Any) -> TorchCausalLM:
    return reference.load(entry(**changes), folder, Settings(), lambda *_: None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(scope="module", params=MAKERS)
def engine(request: pytest.FixtureRequest, folders: dict[str, Path]) -> TorchCausalLM:
    return load(folders[request.param], **ENTRIES[request.param])


def theirs(engine: TorchCausalLM, prompt: Sequence[int], new: int, **changes: Any) -> list[int]:
    """New token ids of transformers' own `generate` on the same weights, end token left out."""
    ids = torch.tensor([list(prompt)])
    how = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None, "pad_token_id": 0, **changes}
    with torch.inference_mode():
        found = engine.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **how)
    return [token for token in found[0, len(prompt) :].tolist() if token not in engine._eos]


def ours(engine: TorchCausalLM, prompt: Sequence[int], sampling: Sampling) -> list[int]:
    return [token.id for token in engine.generate(prompt, sampling)]


# -- as transformers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_logits_are_those_of_transformers_in_float32(folders: dict[str, Path], name: str) -> None:
    engine = load(folders[name], **ENTRIES[name])
    tokenizer: Any = AutoTokenizer.from_pretrained(folders[name])
    model: Any = AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float32)
    for text in PROMPTS[:2]:
        ids = tokenizer(text)["input_ids"]
        assert engine.tokenize(text) == ids
        with torch.inference_mode():
            expected = model(torch.tensor([ids])).logits[0, -1]
        loose = engine.model.dtype == torch.bfloat16
        found = torch.from_numpy(engine.next_token_logits(ids))
        torch.testing.assert_close(found, expected, atol=0.5 if loose else 1e-4, rtol=0)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("text", PROMPTS)
def test_greedy_is_what_transformers_generates(engine: TorchCausalLM, text: str, penalty: float) -> None:
    prompt = engine.tokenize(text)
    found = ours(engine, prompt, Sampling(max_new_tokens=20, repetition_penalty=penalty))
    assert found == theirs(engine, prompt, 20, repetition_penalty=penalty)


@pytest.mark.parametrize("num_beams", [2, 4])
@pytest.mark.parametrize("text", PROMPTS)
def test_beams_are_what_transformers_searches(engine: TorchCausalLM, text: str, num_beams: int) -> None:
    prompt = engine.tokenize(text)
    found, expected = engine.beam_search(prompt, 10, num_beams), theirs(engine, prompt, 10, num_beams=num_beams)
    # In bfloat16 two beams may be as good as each other.
    assert found == expected or (
        engine.model.dtype == torch.bfloat16
        and naive(engine, prompt, found) == pytest.approx(naive(engine, prompt, expected), abs=0.3)
    )


def test_the_same_seed_gives_the_same_text_and_another_seed_another(engine: TorchCausalLM) -> None:
    prompt = engine.tokenize(PROMPTS[0])
    texts = {}
    for seed in (1, 2, 3):
        sampling = Sampling(max_new_tokens=20, do_sample=True, temperature=1.3, top_k=50, top_p=0.95, seed=seed)
        texts[seed] = ours(engine, prompt, sampling)
        torch.manual_seed(seed)  # whatever others do with the process's own generator
        assert ours(engine, prompt, sampling) == texts[seed]
    assert len(set(map(tuple, texts.values()))) == 3


def test_a_prompt_read_in_parts_is_read_as_a_whole(engine: TorchCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = engine.tokenize(PROMPTS[3])
    whole = engine.next_token_logits(prompt)
    monkeypatch.setattr(reference, "PREFILL_TOKENS", 7)
    loose = engine.model.dtype == torch.bfloat16
    np.testing.assert_allclose(engine.next_token_logits(prompt), whole, atol=0.5 if loose else 1e-3)


def test_the_pieces_of_text_are_the_text(engine: TorchCausalLM) -> None:
    prompt = engine.tokenize(PROMPTS[2])
    assert engine.detokenize(prompt) == PROMPTS[2]
    tokens = list(engine.generate(prompt, Sampling(max_new_tokens=30, do_sample=True, temperature=2.0)))
    joined, whole = "".join(token.text for token in tokens), engine.detokenize([token.id for token in tokens])
    assert whole.rstrip("\ufffd").startswith(joined.rstrip("\ufffd"))
    assert all(0 < token.probability <= 1 for token in tokens)


# -- likelihoods ---------------------------------------------------------------------------------------


def naive(engine: TorchCausalLM, prompt: Sequence[int], label: Sequence[int]) -> float:
    """One sequence by itself, without any cache."""
    with torch.inference_mode():
        logits = engine.model(torch.tensor([[*prompt, *label]])).logits[0].float().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(label) - 1)
    return sum(float(logits[place, token]) for place, token in zip(places, label, strict=True))


TEMPLATE = "Text: the film was boring.\nTopic: film\n\nText: {}\nTopic:"


@pytest.mark.parametrize("bounds", [(2048, 16_384, 512), (16, 200, 64), (1, 1, 8)], ids=["one step", "some", "many"])
def test_likelihoods_are_those_of_each_sequence_by_itself(
    engine: TorchCausalLM, bounds: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of unlike lengths stand in one batch: their padding takes no position from the labels."""
    for name, value in zip(("STEP_TOKENS", "STEP_CACHED", "STEP_LOGITS"), bounds, strict=True):
        monkeypatch.setattr(likelihood, name, value)
    prompts = [TEMPLATE.format(text) for text in ("I hated it.", "x", "salsa and bachata in the plaza " * 4)]
    labels = [" film", " politics and the sea", " x", " 生活"]
    found = engine.label_likelihoods(prompts, labels)
    for prompt, row in zip(prompts, found, strict=True):
        expected = [naive(engine, engine.tokenize(prompt), engine.tokenize(label)) for label in labels]
        loose = engine.model.dtype == torch.bfloat16
        assert [one.total for one in row] == pytest.approx(expected, abs=0.5 if loose else 1e-3)
        assert [one.tokens for one in row] == [len(engine.tokenize(label)) for label in labels]


# -- the window ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt(folders: dict[str, Path]) -> TorchCausalLM:
    return load(folders["gpt2"], **ENTRIES["gpt2"])


def test_the_window_is_no_longer_than_the_positions(folders: dict[str, Path]) -> None:
    assert load(folders["gpt2"], context_window=100_000).context_window == 1024
    assert load(folders["gpt2"], context_window=100).context_window == 100
    assert load(folders["llama_chat"], context_window=100_000).context_window == 2048


@pytest.mark.parametrize("room", [0, 1, 3])
def test_learned_positions_are_used_to_the_last_and_no_further(gpt: TorchCausalLM, room: int) -> None:
    prompt = [(7 * i) % 250 + 1 for i in range(1024 - room)]
    found = ours(gpt, prompt, Sampling(max_new_tokens=50))
    assert len(found) == room
    assert found == (theirs(gpt, prompt, room) if room else [])
    assert len(gpt.beam_search(prompt, 50, 2)) <= room
    assert np.isfinite(gpt.next_token_logits(prompt)).all()


def test_a_text_longer_than_the_window_is_refused(gpt: TorchCausalLM) -> None:
    long = [5] * 1025
    for ask in (
        lambda: ours(gpt, long, Sampling()),
        lambda: gpt.beam_search(long, 5, 2),
        lambda: gpt.next_token_logits(long),
        lambda: gpt.label_likelihoods(["! " * 512, "x"], [" x"]),
    ):
        with pytest.raises(InvalidInput, match=r"1,02\d tokens are more than the context window of tiny"):
            ask()


def test_likelihoods_at_the_very_end_of_the_window(gpt: TorchCausalLM) -> None:
    prompts, labels = [[3] * 1020, [4], [3] * 500], [[9], [8, 7, 6, 5]]
    found = likelihood.label_likelihoods(gpt, prompts, labels, run_here)
    for prompt, row in zip(prompts, found, strict=True):
        assert [one.total for one in row] == pytest.approx([naive(gpt, prompt, x) for x in labels], abs=2e-3)


def test_the_end_of_text_ends_a_text(gpt: TorchCausalLM) -> None:
    end = gpt.tokenize(END_OF_TEXT)
    assert frozenset(end) == gpt._eos
    assert gpt.detokenize(end) == ""
    assert gpt.detokenize(end, special_tokens=True) == END_OF_TEXT


# -- conversations ---------------------------------------------------------------------------------------

CONVERSATION = [
    {"role": "user", "content": "Could you tell me how to cook rice?"},
    {"role": "assistant", "content": "I think you can use a rice cooker."},
    {"role": "user", "content": "Could I just use a plain old pot?"},
]
SYSTEM = {"role": "system", "content": "Be brief."}


def test_dialogpt_reads_turns_each_closed_by_the_end_token(folders: dict[str, Path]) -> None:
    engine = load(folders["dialogpt"], **ENTRIES["dialogpt"])
    assert engine.chats
    (end,) = engine._eos
    one, two, three = (engine.tokenize(message["content"]) for message in CONVERSATION)
    assert engine.chat_prompt(CONVERSATION[:1]) == [*one, end]
    assert engine.chat_prompt(CONVERSATION) == [*one, end, *two, end, *three, end]
    reply = ours(engine, engine.chat_prompt(CONVERSATION), Sampling(max_new_tokens=10))
    assert reply == theirs(engine, [*one, end, *two, end, *three, end], 10)


def test_a_system_prompt_is_refused_where_there_is_no_place_for_it(folders: dict[str, Path]) -> None:
    engine = load(folders["dialogpt"], **ENTRIES["dialogpt"], id="some/dialogue-model")
    with pytest.raises(InvalidInput, match="dialogue-model") as refused:
        engine.chat_prompt([SYSTEM, *CONVERSATION])
    assert refused.value.field == "system_prompt"


def test_a_model_that_completes_texts_does_not_chat(gpt: TorchCausalLM) -> None:
    assert not gpt.chats
    with pytest.raises(InvalidInput, match="tiny completes texts and was not trained to chat; choose") as refused:
        gpt.chat_prompt(CONVERSATION)
    assert refused.value.field == "model"


def test_a_folders_own_template_comes_first(folders: dict[str, Path]) -> None:
    for changes in ({}, {"chat_template": TURNS}):
        engine = load(folders["llama_chat"], context_window=2048, **changes)
        assert engine.chats
        prompt = engine.chat_prompt([SYSTEM, CONVERSATION[0]])
        assert engine.detokenize(prompt, special_tokens=True) == (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nCould you tell me how to cook rice?<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        assert prompt[0] == 1
        assert engine._eos == {2}


def test_a_template_may_refuse_a_conversation_and_may_be_damaged(folders: dict[str, Path]) -> None:
    picky = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}{{ messages[0].content }}"
    engine = load(folders["gpt2"], chat_template=picky)
    assert engine.chat_prompt(CONVERSATION[:1]) == engine.tokenize(CONVERSATION[0]["content"])
    with pytest.raises(InvalidInput, match="one turn only") as refused:
        engine.chat_prompt(CONVERSATION)
    assert refused.value.field == "history"
    with pytest.raises(WeightsCorrupt, match="chat template of tiny is damaged"):
        load(folders["gpt2"], chat_template="{% for %}").chat_prompt(CONVERSATION)


def test_a_template_cannot_reach_out_of_its_sandbox(folders: dict[str, Path]) -> None:
    escape = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(InvalidInput, match="chat template"):
        load(folders["gpt2"], chat_template=escape).chat_prompt(CONVERSATION)


# -- loading ---------------------------------------------------------------------------------------------


def test_weights_published_in_float32_stay_so(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2's greedy texts are those that were published; a Llama published in bfloat16 loses nothing by it."""
    for fast in (True, False):
        monkeypatch.setattr(reference, "cpu_has_bfloat16", lambda fast=fast: fast)
        for name, halved in (("gpt2", False), ("dialogpt", False), ("llama_chat", fast)):
            engine = load(folders[name], **ENTRIES[name])
            assert {p.dtype for p in engine.model.parameters()} == {torch.bfloat16 if halved else torch.float32}
            assert engine.name == ("torch-bf16" if halved else "torch-fp32")
            parameters = engine.model.num_parameters()
            assert (
                engine.nbytes
                == parameters * (2 if halved else 4)
                <= memory_bytes(entry(**ENTRIES[name], parameters=parameters))
            )


def test_bfloat16_keeps_the_weights_that_were_published(folders: dict[str, Path]) -> None:
    stored: Any = AutoModelForCausalLM.from_pretrained(folders["llama_chat"], dtype="auto")
    assert stored.dtype == torch.bfloat16
    engine = load(folders["llama_chat"], context_window=2048)
    for name, parameter in engine.model.named_parameters():
        torch.testing.assert_close(parameter.float(), stored.get_parameter(name).float(), rtol=0, atol=0)


def test_gpt2_is_read_under_the_names_it_was_published_with(gpt: TorchCausalLM, tmp_path: Path) -> None:
    """The first GPT-2 has no prefix before its names, and its causal masks among its weights."""
    from safetensors.torch import load_file, save_file

    folder = renamed(gpt2(tmp_path), {r"^transformer\.": ""})
    weights = load_file(folder / "model.safetensors")
    assert "wte.weight" in weights
    for layer in range(2):
        weights[f"h.{layer}.attn.bias"] = torch.ones(1024, 1024).tril()[None, None]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = load(folder, context_window=1024)
    np.testing.assert_allclose(found.next_token_logits([3, 4, 5]), gpt.next_token_logits([3, 4, 5]), atol=1e-4)


def test_input_and_output_share_a_table(engine: TorchCausalLM) -> None:
    assert (
        engine.model.get_input_embeddings().weight.data_ptr() == engine.model.get_output_embeddings().weight.data_ptr()
    )


def test_a_llama_in_several_files_is_read(folders: dict[str, Path], tmp_path: Path) -> None:
    whole, parts = load(folders["llama_chat"]), load(sharded(llama_chat(tmp_path), 2))
    np.testing.assert_allclose(parts.next_token_logits([3, 4, 5]), whole.next_token_logits([3, 4, 5]), atol=0.1)


def test_a_folder_of_safetensors_is_not_converted(folders: dict[str, Path], tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path)
    assert reference.prepare(entry(), folders["gpt2"], settings, lambda *_: None) == folders["gpt2"]
    reference.load(entry(), folders["gpt2"], settings, lambda *_: None)
    assert not list(tmp_path.rglob("*"))


def test_what_is_no_decoder_is_refused(tmp_path: Path) -> None:
    """transformers would generate with BERT, each word seeing those after it."""
    with pytest.raises(SuiteError, match="'bert'"):
        load(bert_mlm(tmp_path / "mlm"))
    with pytest.raises(WeightsCorrupt, match="not trained for text generation"):
        load(bert_qa(tmp_path / "qa"))


def test_no_tokenizer(tmp_path: Path) -> None:
    folder = dialogpt(tmp_path)
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()
    with pytest.raises(WeightsCorrupt, match=r"no tokenizer: neither tokenizer\.json nor vocab\.json and merges\.txt"):
        load(folder)


def test_an_architecture_that_changes_its_logits_is_refused(tmp_path: Path) -> None:
    """Granite divides them; taken as they are, every probability would be wrong."""
    from transformers import GraniteConfig, GraniteForCausalLM

    from tests.tiny_checkpoints.weights import seeded

    folder = llama_chat(tmp_path)
    sizes = json.loads((folder / "config.json").read_text())
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = GraniteConfig(**{name: sizes[name] for name in names}, logits_scaling=4.0)
    seeded(GraniteForCausalLM(config), 5).save_pretrained(folder)
    with pytest.raises(SuiteError, match="'granite'"):
        load(folder)


def test_an_architecture_without_a_memory_is_refused(tmp_path: Path) -> None:
    """The first GPT keeps no keys and values; a token at a time, it would forget all but the newest."""
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    from tests.tiny_checkpoints.weights import seeded

    folder = dialogpt(tmp_path)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = OpenAIGPTConfig(vocab_size=vocabulary + 8, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    seeded(OpenAIGPTLMHeadModel(config), 5).save_pretrained(folder)
    with pytest.raises(SuiteError, match="'openai-gpt'"):
        load(folder)
