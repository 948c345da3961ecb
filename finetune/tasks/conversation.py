"""Conversation and instructions: a causal LM learns the reply, through its own chat template.

The loss counts on the reply alone; the prompt's tokens are masked. With `packing`, several conversations fill one row,
each with positions of its own, and no token sees another conversation (transformers makes the mask from positions).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.data.split import Item
from finetune.recipe import Recipe
from finetune.tasks import quantized
from shared.errors import InvalidInput

NO_LOSS = -100
BATCH = 16
LOSS_BATCH = 4
"""Logits of every position are held at once: 200 kB each with a vocabulary of 49,152."""


def load(folder: Path, recipe: Recipe, labels: Sequence[str], quantization: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    frozen_in_half = recipe.training.dtype == "bfloat16" and recipe.method.saves == "adapter"
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if frozen_in_half else torch.float32,
        **quantized(quantization),
        local_files_only=True,
    )


def load_processor(folder: Path, recipe: Recipe) -> Any:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.chat_template:
        raise InvalidInput("this base has no chat template, so it cannot be fine-tuned for conversation", field="base")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def messages(text: str, instruction: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{instruction}\n\n{text}" if instruction else text}]


def prompt_ids(conversation: list[dict[str, str]], processor: Any) -> list[int]:
    text = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    return processor(text, add_special_tokens=False)["input_ids"]


def encode(item: Item, processor: Any, recipe: Recipe, labels: Sequence[str]) -> dict[str, Any]:
    prompt = prompt_ids(messages(item.input, recipe.instruction), processor)
    reply = [*processor(item.target, add_special_tokens=False)["input_ids"], processor.eos_token_id]
    room = recipe.training.max_length
    reply = reply[: max(room // 2, room - len(prompt))]
    # What does not fit is cut out of the prompt's middle: its beginning holds the instruction, its end the turn marker.
    excess = len(prompt) + len(reply) - room
    if excess > 0:
        half = (len(prompt) - excess) // 2
        prompt = prompt[: len(prompt) - excess - half] + (prompt[-half:] if half else [])
    return {"input_ids": [*prompt, *reply], "labels": [NO_LOSS] * len(prompt) + reply}


def pack(rows: Sequence[dict[str, Any]], length: int) -> list[dict[str, Any]]:
    """Rows put together, in their order, up to `length` tokens; `position_ids` start anew with each."""
    packed: list[dict[str, Any]] = []
    for row in rows:
        size = len(row["input_ids"])
        if not packed or len(packed[-1]["input_ids"]) + size > length:
            packed.append({"input_ids": [], "labels": [], "position_ids": []})
        packed[-1]["input_ids"] += row["input_ids"]
        # The first token of a conversation is no prediction of the one before it.
        packed[-1]["labels"] += [NO_LOSS, *row["labels"][1:]]
        packed[-1]["position_ids"] += list(range(size))
    return packed


def collate(rows: Sequence[dict[str, Any]], processor: Any) -> dict[str, Any]:
    import torch

    if "position_ids" in rows[0]:
        # One row of all: a mask would have to be made for padding, and there is none.
        joined = {key: [value for row in rows for value in row[key]] for key in rows[0]}
        # With a key-value cache transformers takes the row for one conversation, whatever its positions say.
        return {key: torch.tensor([values]) for key, values in joined.items()} | {"use_cache": False}
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(key: str, filler: int) -> Any:
        return torch.tensor([row[key] + [filler] * (longest - len(row[key])) for row in rows])

    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return {
        "input_ids": padded("input_ids", processor.pad_token_id),
        "labels": padded("labels", NO_LOSS),
        "attention_mask": (torch.arange(longest)[None] < lengths[:, None]).long(),
    }


def answers(
    model: Any, processor: Any, items: Sequence[Item], recipe: Recipe, labels: Sequence[str], tick: Any
) -> list[str]:
    prompts = [prompt_ids(messages(item.input, recipe.instruction), processor) for item in items]
    return completions(model, processor, prompts, recipe, tick)


def completions(model: Any, processor: Any, prompts: Sequence[list[int]], recipe: Recipe, tick: Any) -> list[str]:
    """Greedy replies. Prompts of like length share a batch, so that little is computed for padding."""
    import torch

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found = [""] * len(prompts)
    for start in range(0, len(order), BATCH):
        together = order[start : start + BATCH]
        longest = max(len(prompts[i]) for i in together)
        ids = torch.tensor([[processor.pad_token_id] * (longest - len(prompts[i])) + prompts[i] for i in together])
        lengths = torch.tensor([len(prompts[i]) for i in together])
        mask = (torch.arange(longest)[None] >= longest - lengths[:, None]).long()
        with torch.inference_mode():
            written = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=recipe.evaluation.max_new_tokens,
                do_sample=False,
                pad_token_id=processor.pad_token_id,
                eos_token_id=processor.eos_token_id,
            )
        for i, row in zip(together, written[:, longest:].tolist(), strict=True):
            found[i] = processor.decode(row, skip_special_tokens=True).strip()
        tick(start + len(together), len(prompts))
    return found


def reply_losses(model: Any, processor: Any, items: Sequence[Item], prompts: Sequence[list[int]]) -> list[float]:
    """Of each right reply, the mean negative log-likelihood of its tokens, natural logarithm; exp is perplexity."""
    import torch

    rows = []
    for item, prompt in zip(items, prompts, strict=True):
        reply = [*processor(item.target, add_special_tokens=False)["input_ids"], processor.eos_token_id]
        rows.append({"input_ids": prompt + reply, "labels": [NO_LOSS] * len(prompt) + reply})
    found: list[float] = []
    for start in range(0, len(rows), LOSS_BATCH):
        together = rows[start : start + LOSS_BATCH]
        batch = {key: value.to(model.device) for key, value in collate(together, processor).items()}
        labels = batch.pop("labels")[:, 1:]
        with torch.inference_mode():
            logits = model(**batch).logits[:, :-1].float()
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=NO_LOSS, reduction="none")
        counted = labels != NO_LOSS
        found += (each.sum(1) / counted.sum(1)).tolist()
    return found
