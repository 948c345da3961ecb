"""The stand-in Hub through peft and datasets: what they push is what they pull."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import peft
import pytest
import torch
from datasets.exceptions import DatasetNotFoundError

from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv
from tests.tiny_checkpoints.decoders import llama_chat

ROWS = {"text": ["goal!", "shares fell", "a new phone"], "label": [0, 1, 2]}


def adapted(folder: str | Path) -> Any:
    """A tiny Llama with a LoRA adapter that changes what it says, seeded."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    base = AutoModelForCausalLM.from_pretrained(folder)
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return model.eval()


def test_a_pushed_adapter_is_pulled_onto_its_base(hub: StandInHub, hub_env: HubEnv, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = llama_chat(tmp_path / "base")
    model = adapted(base)
    model.push_to_hub("user/tiny-lora", token="hf_writer", private=True)

    held = hub.files("user/tiny-lora")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(held)
    with pytest.raises(ValueError, match="Can't find 'adapter_config"):
        peft.PeftConfig.from_pretrained("user/tiny-lora")  # private, and no token

    fresh = AutoModelForCausalLM.from_pretrained(base)
    pulled = peft.PeftModel.from_pretrained(fresh, "user/tiny-lora", token="hf_writer").eval()
    tokens = torch.arange(3, 23).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(pulled(tokens).logits, model(tokens).logits)
        with pulled.disable_adapter():
            assert not torch.equal(pulled(tokens).logits, model(tokens).logits)


def test_pushed_rows_are_pulled(hub: StandInHub, hub_env: HubEnv, tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict(ROWS)
    rows.push_to_hub("user/rows", token="hf_writer", private=True)
    with pytest.raises(DatasetNotFoundError):  # private, and no token
        datasets.load_dataset("user/rows", cache_dir=str(tmp_path))
    pulled = datasets.load_dataset("user/rows", token="hf_writer", cache_dir=str(tmp_path))
    assert pulled["train"].to_dict() == ROWS


def test_a_table_is_read_whole_and_row_by_row(hub: StandInHub, hub_env: HubEnv, tmp_path: Path) -> None:
    hub.add("user/table", {"train.csv": "text,label\nhello,greeting\nbye,parting\n"}, repo_type="dataset")
    whole = datasets.load_dataset("user/table", split="train", cache_dir=str(tmp_path))
    streamed = datasets.load_dataset("user/table", split="train", streaming=True)
    rows = [{"text": "hello", "label": "greeting"}, {"text": "bye", "label": "parting"}]
    assert list(whole) == list(streamed) == rows
