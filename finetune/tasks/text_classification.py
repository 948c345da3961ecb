"""Text classification: an encoder with transformers' own head for it, so that anyone can load what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.data.split import Item
from finetune.recipe import Recipe
from finetune.tasks import quantized

BATCH = 32


def load(folder: Path, recipe: Recipe, labels: Sequence[str], quantization: Any) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(recipe.training.seed)  # the new head is drawn at random
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        **quantized(quantization),
        dtype=torch.float32,
        local_files_only=True,
    )
    if model.config.pad_token_id is None:  # a decoder's head reads the last token that is no padding
        model.config.pad_token_id = model.config.eos_token_id
    return model


def load_processor(folder: Path, recipe: Recipe) -> Any:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode(item: Item, processor: Any, recipe: Recipe, labels: Sequence[str]) -> dict[str, Any]:
    ids = processor(item.input, truncation=True, max_length=recipe.training.max_length)["input_ids"]
    return {"input_ids": ids, "labels": labels.index(item.target)}


def collate(rows: Sequence[dict[str, Any]], processor: Any) -> dict[str, Any]:
    import torch

    batch = dict(processor.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt"))
    batch["labels"] = torch.tensor([row["labels"] for row in rows])
    return batch


def answers(
    model: Any, processor: Any, items: Sequence[Item], recipe: Recipe, labels: Sequence[str], tick: Any
) -> list[str]:
    import torch

    found: list[str] = []
    for start in range(0, len(items), BATCH):
        texts = [item.input for item in items[start : start + BATCH]]
        batch = processor(
            texts, truncation=True, max_length=recipe.training.max_length, padding=True, return_tensors="pt"
        ).to(model.device)
        with (
            torch.inference_mode(),
            torch.autocast(model.device.type, torch.bfloat16, enabled=recipe.training.dtype == "bfloat16"),
        ):
            logits = model(**batch).logits
        found += [str(labels[i]) for i in logits.argmax(-1).tolist()]
        tick(len(found), len(items))
    return found
