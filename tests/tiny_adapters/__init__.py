"""Adapters with seeded random weights, written by peft itself as a recipe writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def lora(**changes: Any) -> Any:
    import peft

    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    return peft.LoraConfig(**{**options, **changes})


def causal_adapter(
    base: Path, folder: Path, config: Any = None, *, seed: int = 5, strength: float = 0.4, dtype: Any = None
) -> Any:
    """Saves an adapter that changes what the base says, and returns peft's model to compare with."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    return saved(model, config or lora(), folder, seed=seed, strength=strength)


def classifier_adapter(
    base: Path, folder: Path, config: Any, labels: int, *, seed: int = 5, strength: float = 0.2
) -> Any:
    """The same for a text classifier with a head of its own."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)  # the head is drawn as the model is made
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    return saved(model, config, folder, seed=seed, strength=strength)


def write_metadata(folder: Path, **content: Any) -> None:
    """Writes our own description beside peft's."""
    (folder / "suite_adapter.json").write_text(json.dumps(content), encoding="utf-8")


def saved(model: Any, config: Any, folder: Path, *, seed: int = 5, strength: float = 0.4) -> Any:
    """Puts an adapter on a model of transformers and saves it."""
    import peft

    adapted = peft.get_peft_model(model, config)
    randomised(adapted, seed, strength)
    adapted.save_pretrained(folder)
    return adapted.eval()


def randomised(adapted: Any, seed: int, strength: float) -> None:
    """Draws the adapter's weights; peft begins with an adapter that changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * strength)
            elif "ia3_" in name:
                weight.copy_(1 + torch.randn(weight.shape, generator=generator) * strength)


def on_disk(folder: Path, tensors: dict[str, Any], config: dict[str, Any], **content: Any) -> Path:
    """The files of an adapter, with no model behind them."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4, **config}))
    if content:
        write_metadata(folder, **content)
    return folder
