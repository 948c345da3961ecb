"""Adapters on a shared base: what is computed is what peft computes, for whoever it is meant, and for nobody else."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.checkpoints.adapter_folder import read_folder
from shared.engines.adapters.adapted import Adapted, apply_adapter
from shared.engines.adapters.deltas import load
from shared.engines.compute import run_here
from shared.engines.decoders.architectures import architecture_of
from shared.engines.decoders.batched_engine import BatchedCausalLM
from shared.engines.decoders.reference import TorchCausalLM
from shared.engines.decoders.reference import load as load_causal_lm
from shared.engines.encoders.reference import TorchSentenceEncoder
from shared.engines.protocols import Sampling
from shared.engines.seq2seq import batched as seq2seq_batched
from shared.engines.seq2seq import reference as seq2seq_reference
from shared.errors import SuiteError, WeightsCorrupt
from shared.scheduling.lane import Lane, Timing
from shared.settings import Settings
from tests.tiny_adapters import causal_adapter, classifier_adapter, lora, saved, write_metadata
from tests.tiny_checkpoints import decoders, seq2seq
from tests.tiny_checkpoints.entry import entry

PROMPTS = ("The house is big and", "Numbers: 3 14 159", "She")
TEXTS = ("The striker scored twice in the final.", "Shares fell as the bank raised rates again, and oil too.", "Yes.")

LLAMA, GPT2, T5 = entry(id="llama"), entry(id="gpt2"), entry(id="t5", kind="seq2seq", engine="seq2seq.reference")
MINILM = entry(id="minilm", kind="sentence-encoder", engine="encoders.reference")
KNOWN = {c.id: c for c in (LLAMA, GPT2, T5, MINILM)}


def quiet(*_: Any) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    decoders.llama_chat(folder / "llama")
    decoders.gpt2(folder / "gpt2")
    return folder


@pytest.fixture(scope="module")
def llama(folders: Path, settings: Settings) -> TorchCausalLM:
    return load_causal_lm(LLAMA, folders / "llama", settings, quiet)


@pytest.fixture(scope="module")
def minilm_folder(weights: Callable[[str], Path]) -> Path:
    return weights("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path, settings: Settings) -> TorchSentenceEncoder:
    from shared.engines.encoders import reference

    return reference.load(MINILM.model_copy(update={"context_window": 256}), minilm_folder, settings, quiet)


def on(base: Any, folder: Path, checkpoint: Any = LLAMA, **description: Any) -> Adapted:
    """The adapter in a folder, put on a base."""
    write_metadata(folder, checkpoint=checkpoint.id, **description)
    adapter = read_folder(folder, KNOWN)
    return apply_adapter(checkpoint, base, load(adapter, folder, quiet))


def with_(adapted: Adapted) -> Any:
    return lambda step: adapted.active_during(step)()


def greedy(engine: Any, text: str, compute: Any = None, tokens: int = 12) -> list[int]:
    prompt = engine.tokenize(text)
    more = (compute,) if compute else ()
    return [token.id for token in engine.generate(prompt, Sampling(max_new_tokens=tokens), *more)]


def generated(model: Any, engine: Any, text: str, tokens: int = 12, ends: Any = None) -> list[int]:
    """What `generate` of peft's model writes, end token left out."""
    ids = torch.tensor([engine.tokenize(text)])
    with torch.no_grad():
        out = model.generate(input_ids=ids, max_new_tokens=tokens, do_sample=False)[0, ids.shape[1] :].tolist()
    ends = ends or engine.model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends
    return next((out[:i] for i, token in enumerate(out) if token in ends), out)


# -- what is computed --------------------------------------------------------------------------------

CONFIGS: dict[str, Any] = {
    "lora": lora,
    "all linear layers, rank-stabilised": lambda: lora(target_modules="all-linear", use_rslora=True, r=8),
    "a pattern": lambda: lora(target_modules=r".*\.(q_proj|down_proj)"),
    "its own rank and alpha a layer": lambda: lora(
        target_modules=["q_proj", "k_proj", "up_proj"],
        rank_pattern={"q_proj": 2},
        alpha_pattern={"layers.1.*k_proj": 32},
    ),
    "one layer": lambda: lora(layers_to_transform=[1], layers_pattern="layers"),
    "ia3": lambda: peft.IA3Config(task_type="CAUSAL_LM"),
    "ia3 on the way out": lambda: peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=["v_proj", "gate_proj"], feedforward_modules=[]
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_greedy_text_is_that_of_peft(config: Any, llama: TorchCausalLM, folders: Path, tmp_path: Path) -> None:
    theirs = causal_adapter(folders / "llama", tmp_path / "one", config(), dtype=llama.model.dtype)
    adapted = on(llama, tmp_path / "one")
    assert adapted.kind is None
    changed = 0
    for prompt in PROMPTS:
        found = greedy(llama, prompt, with_(adapted))
        assert found == generated(theirs, llama, prompt)
        ids = torch.tensor([llama.tokenize(prompt)])
        with torch.no_grad():
            expected = theirs(ids).logits[0, -1].float().numpy()
        np.testing.assert_allclose(
            llama.next_token_logits(llama.tokenize(prompt), with_(adapted)), expected, atol=1e-5, rtol=1e-5
        )
        changed += found != greedy(llama, prompt)
    assert changed, "an adapter that changes nothing proves nothing"


class Adapting:
    """A `Compute` that has an adapter active."""

    owner = "visitor adapter"

    def __init__(self, adapted: Adapted) -> None:
        self._adapted = adapted

    def __call__(self, step: Callable[[], Any], /) -> Any:
        return self._adapted.active_during(step)()

    def submit(self, kernel: Any, item: Any, /) -> Any:
        return self(lambda: run_here.submit(kernel, item))

    def map(self, kernel: Any, items: Any, /) -> Any:
        return self(lambda: run_here.map(kernel, items))


def batched(folder: Path, checkpoint: Any, settings: Settings, **changes: Any) -> BatchedCausalLM:
    """The fast engine on a base, whose matrices are merged."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = architecture_of(model.config)
    assert found is not None
    kind, shape = found
    network = kind(kind.pack(model.state_dict(), shape), shape)
    tokenizer = load_causal_lm(checkpoint, folder, settings, quiet).tokenizer
    return BatchedCausalLM(network, tokenizer, shape.positions, [model.config.eos_token_id], checkpoint_id="tiny")


@pytest.fixture(scope="module")
def batched_llama(folders: Path, settings: Settings) -> BatchedCausalLM:
    return batched(folders / "llama", LLAMA, settings)


@pytest.fixture(scope="module")
def batched_gpt2(folders: Path, settings: Settings) -> BatchedCausalLM:
    return batched(folders / "gpt2", GPT2, settings)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_fast_engine_computes_what_peft_does(
    config: Any, batched_llama: Any, folders: Path, tmp_path: Path
) -> None:
    theirs = causal_adapter(folders / "llama", tmp_path / "one", config(), dtype=torch.float32)
    compare(batched_llama, theirs, on(batched_llama, tmp_path / "one"))


def compare(engine: BatchedCausalLM, theirs: Any, adapted: Adapted) -> None:
    """Logits and greedy texts against peft's model."""
    (end,) = engine._ends
    for prompt in PROMPTS:
        ids = engine.tokenize(prompt)
        found = engine.next_token_logits(ids, Adapting(adapted))
        with torch.no_grad():
            expected = theirs(torch.tensor([ids])).logits[0, -1].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
        assert np.abs(found - engine.next_token_logits(ids)).max() > 1e-2, "an adapter that changes something"
        assert greedy(engine, prompt, Adapting(adapted)) == generated(theirs, engine, prompt, ends=[end])


GPT2_CONFIGS: dict[str, Any] = {
    "attention": lambda: lora(target_modules=["c_attn"], fan_in_fan_out=True),
    "all but the first of a block": lambda: lora(target_modules=["c_proj", "c_fc"], fan_in_fan_out=True),
    "all linear layers": lambda: lora(target_modules="all-linear", r=8, fan_in_fan_out=True),
    "one layer": lambda: lora(
        target_modules=["c_attn"], layers_to_transform=[1], layers_pattern="h", fan_in_fan_out=True
    ),
    "ia3": lambda: peft.IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["c_attn", "mlp.c_proj"],
        feedforward_modules=["mlp.c_proj"],
        fan_in_fan_out=True,
    ),
}


@pytest.mark.parametrize("config", GPT2_CONFIGS.values(), ids=GPT2_CONFIGS)
def test_the_fast_engine_computes_what_peft_does_on_gpt2(
    config: Any, batched_gpt2: Any, folders: Path, tmp_path: Path
) -> None:
    """Its layers are transposed and have biases, which IA3 scales along."""
    theirs = causal_adapter(folders / "gpt2", tmp_path / "one", config())
    compare(batched_gpt2, theirs, on(batched_gpt2, tmp_path / "one", GPT2))


def test_a_classifier_on_the_fast_gpt2(batched_gpt2: Any, folders: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    theirs = classifier_adapter(folders / "gpt2", tmp_path / "one", config, labels=2).eval()
    adapted = on(batched_gpt2, tmp_path / "one", GPT2)
    for text, row in zip(TEXTS, adapted.engine.logits(TEXTS, Adapting(adapted)), strict=True):
        with torch.no_grad():
            expected = theirs(torch.tensor([batched_gpt2.tokenize(text)])).logits[0].numpy()
        np.testing.assert_allclose(row, expected, atol=1e-4, rtol=1e-4)


def test_half_precision_is_widened_as_peft_does(llama: TorchCausalLM, folders: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    causal_adapter(folders / "llama", tmp_path / "half")
    file = tmp_path / "half" / "adapter_model.safetensors"
    save_file({key: value.bfloat16() for key, value in load_file(file).items()}, file)
    base = AutoModelForCausalLM.from_pretrained(folders / "llama", dtype=llama.model.dtype)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "half").eval()
    adapted = on(llama, tmp_path / "half")
    assert [greedy(llama, p, with_(adapted)) for p in PROMPTS] == [generated(theirs, llama, p) for p in PROMPTS]


def test_gpt2s_transposed_layers(folders: Path, settings: Settings, tmp_path: Path) -> None:
    theirs = causal_adapter(
        folders / "gpt2", tmp_path / "one", lora(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    )
    engine = load_causal_lm(GPT2, folders / "gpt2", settings, quiet)
    adapted = on(engine, tmp_path / "one", GPT2)
    for prompt in PROMPTS:
        assert greedy(engine, prompt, with_(adapted)) == generated(theirs, engine, prompt)


SEQ2SEQ_CONFIGS: dict[str, Any] = {
    "lora": (seq2seq.t5, lambda: lora(target_modules=["q", "v", "wo"], task_type="SEQ_2_SEQ_LM")),
    "ia3": (seq2seq.flan_t5, lambda: peft.IA3Config(task_type="SEQ_2_SEQ_LM")),
    "the output too": (seq2seq.t5, lambda: lora(target_modules=["k", "lm_head"], task_type="SEQ_2_SEQ_LM")),
    "m2m100": (seq2seq.m2m100, lambda: lora(target_modules="all-linear", task_type="SEQ_2_SEQ_LM")),
}


@pytest.mark.parametrize("module", [seq2seq_reference, seq2seq_batched], ids=["reference", "batched"])
@pytest.mark.parametrize("config", SEQ2SEQ_CONFIGS)
def test_an_encoder_decoder(config: str, module: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    make, described = SEQ2SEQ_CONFIGS[config]
    make(tmp_path / "t5")
    own = Settings.model_validate({"cache_dir": tmp_path / "cache"})
    engine = module.load(T5, tmp_path / "t5", own, quiet)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "t5")
    theirs = saved(model, described(), tmp_path / "one", strength=1.0)
    file = tmp_path / "one" / "adapter_model.safetensors"  # peft copies an output matrix that is changed
    save_file({key: value for key, value in load_file(file).items() if "lora_" in key or "ia3_" in key}, file)
    adapted = on(engine, tmp_path / "one", T5)
    changed = 0
    for text in ("The house is big and the street is small.", "Where is the nearest train station?"):
        ids = torch.tensor([engine.tokenize(text)])
        with torch.no_grad():
            expected = theirs.generate(input_ids=ids, max_new_tokens=12, num_beams=1, do_sample=False)[0].tolist()
        found = greedy(engine, text, Adapting(adapted))
        assert found == [token for token in expected[1:] if token not in engine.rules.ends]
        changed += found != greedy(engine, text)
    assert changed


ENCODER_CONFIGS: dict[str, Any] = {
    "lora": lambda: peft.LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"]),
    "the pooler trained too": lambda: peft.LoraConfig(
        task_type="SEQ_CLS", target_modules=["key"], modules_to_save=["pooler", "classifier"]
    ),
    "all linear layers": lambda: peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", r=2),
    "ia3": lambda: peft.IA3Config(task_type="SEQ_CLS"),
}


@pytest.mark.parametrize("config", ENCODER_CONFIGS.values(), ids=ENCODER_CONFIGS)
def test_a_classifier_on_the_sentence_encoder(
    config: Any, minilm: TorchSentenceEncoder, minilm_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    classifier_adapter(minilm_folder, tmp_path / "one", config(), labels=3)
    base = AutoModelForSequenceClassification.from_pretrained(minilm_folder, num_labels=3)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "one").eval()
    tokens = AutoTokenizer.from_pretrained(minilm_folder)(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**tokens).logits.numpy()
    before = minilm.encode(TEXTS)
    adapted = on(minilm, tmp_path / "one", MINILM, labels=["a", "b", "c"])
    assert adapted.kind == "sequence-classifier"
    assert adapted.engine.labels == ("a", "b", "c")
    np.testing.assert_allclose(adapted.engine.logits(TEXTS, with_(adapted)), expected, atol=2e-5)
    assert np.array_equal(minilm.encode(TEXTS), before), "the encoder itself is as it was, bit for bit"
    assert adapted.engine.count_tokens(["one two"]) == [2]


@pytest.mark.parametrize("config", ENCODER_CONFIGS.values(), ids=ENCODER_CONFIGS)
def test_a_classifier_on_the_fast_encoder(
    config: Any, minilm_folder: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.engines.encoders import batched
    from shared.engines.encoders.bert import BertNetwork

    monkeypatch.setattr(batched, "BertNetwork", partial(BertNetwork, int8=False))
    minilm = batched.load(MINILM.model_copy(update={"context_window": 256}), minilm_folder, settings, quiet)
    theirs = classifier_adapter(minilm_folder, tmp_path / "one", config(), labels=3).eval()
    adapted = on(minilm, tmp_path / "one", MINILM, labels=["a", "b", "c"])
    for text in TEXTS:
        tokens = minilm.tokenizer.encode(text)
        with torch.no_grad():
            expected = theirs(input_ids=torch.tensor([tokens.ids])).logits.numpy()
        np.testing.assert_allclose(adapted.engine.logits([text], Adapting(adapted)), expected, atol=1e-4)


def test_a_classifier_on_a_decoder(llama: TorchCausalLM, folders: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "v_proj"])
    classifier_adapter(folders / "llama", tmp_path / "one", config, labels=2)
    base = AutoModelForSequenceClassification.from_pretrained(
        folders / "llama", num_labels=2, dtype=llama.model.dtype, pad_token_id=2
    )
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "one").eval()
    adapted = on(llama, tmp_path / "one")
    assert adapted.engine.labels == ("LABEL_0", "LABEL_1")
    found = adapted.engine.logits(TEXTS, with_(adapted))
    for text, row in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            expected = theirs(torch.tensor([llama.tokenize(text)])).logits[0].float().numpy()
        np.testing.assert_allclose(row, expected, atol=0.05, rtol=0.02)  # their head is in the base's format


# -- for whom ------------------------------------------------------------------------------------------


def test_side_by_side_each_gets_what_it_gets_alone(llama: TorchCausalLM, folders: Path, tmp_path: Path) -> None:
    """Two adapters and the base at once, step by step on two threads of the lane."""
    compute = {"base": None}
    for seed in (1, 2):
        causal_adapter(folders / "llama", tmp_path / str(seed), lora(target_modules="all-linear"), seed=seed)
        compute[str(seed)] = with_(on(llama, tmp_path / str(seed)))
    alone = {name: greedy(llama, PROMPTS[0], one, 40) for name, one in compute.items()}
    assert len({tuple(text) for text in alone.values()}) == 3
    lane = Lane(2, width=2)
    wrong: list[str] = []

    def visit(name: str) -> None:
        def step_on_lane(step: Callable[[], Any]) -> Any:
            adapted = compute[name]
            inner = (lambda: adapted(step)) if adapted else step
            return lane.run(name, inner, threading.Event(), Timing())

        wrong.extend(name for _ in range(4) if greedy(llama, PROMPTS[0], step_on_lane, 40) != alone[name])

    threads = [threading.Thread(target=visit, args=(name,)) for name in compute]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lane.close()
    assert wrong == []


def test_a_step_that_fails_leaves_no_adapter_behind(llama: TorchCausalLM, folders: Path, tmp_path: Path) -> None:
    causal_adapter(folders / "llama", tmp_path / "one")
    adapted = on(llama, tmp_path / "one")
    before = llama.next_token_logits(llama.tokenize(PROMPTS[0]))

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with_(adapted)(fail)
    assert np.array_equal(llama.next_token_logits(llama.tokenize(PROMPTS[0])), before)


def test_the_bases_weights_are_never_touched(llama: TorchCausalLM, folders: Path, tmp_path: Path) -> None:
    before = {name: (p.data_ptr(), p.clone()) for name, p in llama.model.named_parameters()}
    causal_adapter(folders / "llama", tmp_path / "one", lora(target_modules="all-linear"))
    greedy(llama, PROMPTS[0], with_(on(llama, tmp_path / "one")))
    for name, parameter in llama.model.named_parameters():
        assert (parameter.data_ptr(), True) == (before[name][0], bool(torch.equal(parameter, before[name][1])))


def test_an_adapter_does_not_keep_its_base_in_memory(folders: Path, settings: Settings, tmp_path: Path) -> None:
    causal_adapter(folders / "llama", tmp_path / "one")
    write_metadata(tmp_path / "one", checkpoint="llama")
    engine = load_causal_lm(LLAMA, folders / "llama", settings, quiet)
    held = load(read_folder(tmp_path / "one", KNOWN), tmp_path / "one", quiet)
    apply_adapter(LLAMA, engine, held)
    gone = weakref.ref(engine.model)
    del engine
    gc.collect()
    assert gone() is None
    again = load_causal_lm(LLAMA, folders / "llama", settings, quiet)
    adapted = apply_adapter(LLAMA, again, held)
    assert greedy(again, PROMPTS[0], with_(adapted)) != greedy(again, PROMPTS[0])


# -- what does not fit ---------------------------------------------------------------------------------


def test_an_adapter_of_another_base_is_refused_and_both_are_named(
    llama: TorchCausalLM, folders: Path, tmp_path: Path, minilm_folder: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    wide = LlamaForCausalLM(
        LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    )
    saved(wide, lora(), tmp_path / "wide")
    with pytest.raises(WeightsCorrupt, match=r"wide was made for another base than llama.* 64 by 64.* (16|32) by 32"):
        on(llama, tmp_path / "wide")
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    classifier_adapter(minilm_folder, tmp_path / "bert", config, labels=2)
    with pytest.raises(
        WeightsCorrupt, match=r"bert was made for another base than llama.*no linear layer bert.encoder"
    ):
        on(llama, tmp_path / "bert")


def edited(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    return folder


def test_weights_that_lack_something_or_are_no_numbers_are_refused(
    llama: TorchCausalLM, folders: Path, tmp_path: Path
) -> None:
    def without(end: str) -> Callable[[dict[str, torch.Tensor]], object]:
        return lambda tensors: [tensors.pop(key) for key in list(tensors) if key.endswith(end)]

    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    changes: dict[str, tuple[Any, str]] = {
        "half": (without("layers.1.self_attn.v_proj.lora_B.weight"), "two matrices .* do not belong together"),
        "layer": (
            lambda t: (without("1.self_attn.v_proj.lora_B.weight")(t), without("1.self_attn.v_proj.lora_A.weight")(t)),
            "is not whole: its configuration names model.layers.1.self_attn.v_proj",
        ),
        "nan": (lambda t: t[first].fill_(float("nan")), "no numbers"),
        "rank": (lambda t: t.update({first: t[first][:2].clone()}), "do not belong together"),
        "whole": (lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(2, 2)}), "replaces whole layers"),
        "token": (
            lambda t: t.update({"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(2, 2)}),
            "not plain LoRA",
        ),
    }
    for name, (change, said) in changes.items():
        causal_adapter(folders / "llama", tmp_path / name)
        edited(tmp_path / name, change)
        with pytest.raises(SuiteError, match=said):
            on(llama, tmp_path / name)


def test_a_classifier_saved_without_its_head_is_refused(
    minilm: TorchSentenceEncoder, minilm_folder: Path, tmp_path: Path
) -> None:
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    classifier_adapter(minilm_folder, tmp_path / "one", config, labels=2)
    edited(tmp_path / "one", lambda t: [t.pop(k) for k in list(t) if "classifier" in k])
    with pytest.raises(WeightsCorrupt, match="saved without its classifier"):
        on(minilm, tmp_path / "one", MINILM)


def test_weights_changed_after_they_were_described_are_refused(folders: Path, tmp_path: Path) -> None:
    causal_adapter(folders / "llama", tmp_path / "one")
    write_metadata(tmp_path / "one", checkpoint="llama")
    adapter = read_folder(tmp_path / "one", KNOWN)
    edited(tmp_path / "one", lambda tensors: [value.zero_() for value in tensors.values()])
    with pytest.raises(WeightsCorrupt, match="was changed just now"):
        load(adapter, tmp_path / "one", quiet)
    assert read_folder(tmp_path / "one", KNOWN).revision != adapter.revision
