"""Summaries and translations with an encoder and a decoder: T5, FLAN-T5, Marian."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.data.split import Item
from finetune.recipe import Recipe
from finetune.tasks import quantized

NO_LOSS = -100
BATCH = 16
JOIN_TOKENS = 2
"""Tokens by which a prompt may be longer than its parts: they join differently than they split."""


def load(folder: Path, recipe: Recipe, labels: Sequence[str], quantization: Any) -> Any:
    import torch
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(
        folder, dtype=torch.float32, **quantized(quantization), local_files_only=True
    )


def load_processor(folder: Path, recipe: Recipe) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def with_instruction(text: str, instruction: str) -> str:
    """The task in words: a prefix for T5, a prompt with a placeholder for FLAN-T5."""
    if "{text}" in instruction:
        return instruction.replace("{text}", text)
    return f"{instruction} {text}" if instruction else text


def prompt(text: str, processor: Any, recipe: Recipe) -> str:
    """What the encoder reads. Of a text too long for the recipe's length the end is cut, not that of the prompt."""
    instruction, length = recipe.instruction, recipe.training.max_length
    whole = with_instruction(text, instruction)
    if "{text}" not in instruction or len(processor(whole)["input_ids"]) <= length:
        return whole
    room = length - len(processor(with_instruction("", instruction))["input_ids"]) - JOIN_TOKENS
    ids = processor(text, add_special_tokens=False)["input_ids"][: max(room, 0)]
    return with_instruction(processor.decode(ids, skip_special_tokens=True), instruction)


def encode(item: Item, processor: Any, recipe: Recipe, labels: Sequence[str]) -> dict[str, Any]:
    length = recipe.training.max_length
    ids = processor(prompt(item.input, processor, recipe), truncation=True, max_length=length)["input_ids"]
    target = processor(text_target=item.target, truncation=True, max_length=length)["input_ids"]
    return {"input_ids": ids, "labels": target}


def collate(rows: Sequence[dict[str, Any]], processor: Any) -> dict[str, Any]:
    import torch

    batch = dict(processor.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt"))
    longest = max(len(row["labels"]) for row in rows)
    batch["labels"] = torch.tensor([row["labels"] + [NO_LOSS] * (longest - len(row["labels"])) for row in rows])
    return batch


def answers(
    model: Any, processor: Any, items: Sequence[Item], recipe: Recipe, labels: Sequence[str], tick: Any
) -> list[str]:
    import torch

    found: list[str] = []
    for start in range(0, len(items), BATCH):
        texts = [prompt(item.input, processor, recipe) for item in items[start : start + BATCH]]
        batch = processor(
            texts, truncation=True, max_length=recipe.training.max_length, padding=True, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            written = model.generate(**batch, max_new_tokens=recipe.evaluation.max_new_tokens, do_sample=False)
        found += [text.strip() for text in processor.batch_decode(written, skip_special_tokens=True)]
        tick(len(found), len(items))
    return found
