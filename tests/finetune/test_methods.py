"""Every method on real weights: it learns, and what should be frozen is what it was, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune.base import find_base
from finetune.methods import IA3, BitFit, Full, Partial
from finetune.methods.distillation import keep_layers
from finetune.methods.partial import is_head
from finetune.recipe import Recipe
from finetune.run.prepared import prepare
from finetune.run.train import train
from finetune.run_folder import Run, run_of
from shared.errors import InvalidInput
from shared.serving.runtime import Runtime
from tests.finetune.conftest import MakeRecipe

pytestmark = pytest.mark.slow

METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": {"name": "full"}, "training.learning_rate": 2e-4},
    "partial, head": {"method": {"name": "partial"}, "training.learning_rate": 5e-3},
    "partial, top 2": {"method": {"name": "partial", "top_layers": 2}, "training.learning_rate": 1e-3},
    "bitfit": {"method": {"name": "bitfit"}, "training.learning_rate": 5e-3},
    "ia3": {"method": {"name": "ia3"}, "training.learning_rate": 1e-2},
    "lora": {"method": {"name": "lora"}, "training.learning_rate": 3e-3},
    "lora, bfloat16": {"method": {"name": "lora"}, "training.dtype": "bfloat16"},
    "qlora": {"method": {"name": "qlora"}, "training.learning_rate": 3e-3},
}
STEPS = 8
ONCE = {"training.max_steps": STEPS, "training.evaluations": 1}
"""One checkpoint at the end: to write one takes longer than a step."""


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.entries() if "loss" in entry]


def plain_weights(model: Any) -> dict[str, torch.Tensor]:
    """Copies. Weights in four bits have a class of their own that cannot be copied without a gradient."""
    with torch._C.DisableTorchFunctionSubclass():
        return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def should_learn(name: str, recipe: Recipe) -> bool:
    """By the method's definition, not by what requires a gradient."""
    layer = int(name.split("layer.")[1].split(".")[0]) if "layer." in name else -1
    match recipe.method:
        case Full():
            return True
        case Partial(top_layers=count):
            return is_head(name) or (layer >= 0 and layer >= 6 - count)
        case BitFit():
            return is_head(name) or name.endswith(".bias")
        case IA3():
            return is_head(name) or "ia3_" in name
        case _:
            return is_head(name) or "lora_" in name


@pytest.mark.parametrize("which", METHODS)
def test_a_method_learns_only_what_it_should(which: str, make_recipe: MakeRecipe, parts: Runtime) -> None:
    recipe = make_recipe(**METHODS[which], **ONCE)
    before = prepare(recipe, parts, lambda *_: None).model
    start = plain_weights(before)
    run = run_of(recipe, parts.settings)
    prepared, _ = train(recipe, run, parts)

    learned = {name for name, weight in plain_weights(prepared.model).items() if not torch.equal(weight, start[name])}
    # peft keeps the untrained copy of a module it saves whole.
    meant = {name for name in start if should_learn(name, recipe) and "original_module" not in name}
    assert learned <= meant
    # The embedding of tokens that never occurred, and A where B is still zero, get no gradient; all else moves.
    assert len(learned) > 0.7 * len(meant)
    found = losses(run)
    assert len(found) == STEPS
    assert sum(found[-3:]) < sum(found[:3])


def test_distillation_brings_a_smaller_student_to_its_teacher(make_recipe: MakeRecipe, parts: Runtime) -> None:
    teacher = make_recipe(
        name="teacher", method={"name": "full"}, **{**ONCE, "training.learning_rate": 3e-4, "training.max_steps": 2}
    )
    train(teacher, run_of(teacher, parts.settings), parts)
    student = make_recipe(
        method={"name": "distillation", "teacher": "teacher", "layers": 3, "weight": 0.9},
        **{**ONCE, "training.learning_rate": 3e-4},
    )
    run = run_of(student, parts.settings)
    prepared, expected = train(student, run, parts)
    assert prepared.model.config.num_hidden_layers == 3
    assert len(prepared.model.bert.encoder.layer) == 3
    assert sum(losses(run)[-3:]) < sum(losses(run)[:3])
    kept = load_file(run.result / "model.safetensors")
    assert not any("layer.3." in name for name in kept)
    assert json.loads((run.result / "config.json").read_text())["num_hidden_layers"] == 3
    facts = json.loads((run.result / "training.json").read_text())
    assert facts["status"]["parameters"] == expected.parameters


def test_a_student_keeps_its_first_and_last_layers(parts: Runtime) -> None:
    from transformers import BertModel

    folder = find_base("all-MiniLM-L6-v2", parts, lambda *_: None).folder
    model = BertModel.from_pretrained(folder)
    before = list(model.encoder.layer)
    keep_layers(model, 3)
    assert list(model.encoder.layer) == [before[0], before[2], before[5]]
    with pytest.raises(InvalidInput, match="3 layers, not 4"):
        keep_layers(model, 4)


def test_four_bits_need_inputs_of_whole_blocks(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

    from finetune.methods import QLoRA

    config = BertConfig(vocab_size=50, hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=96)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    method = QLoRA()
    quantized = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, quantization_config=method.quantization(torch.float32)
    )
    with pytest.raises(InvalidInput, match="48 inputs, and NF4 on a CPU needs a multiple of 64"):
        method.adapt(quantized, "text-classification")
