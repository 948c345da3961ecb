"""Tiny decoders: GPT-2, DialoGPT and a Llama that chats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from tests.tiny_checkpoints.vocabulary import byte_level_bpe
from tests.tiny_checkpoints.weights import seeded

END_OF_TEXT = "<|endoftext|>"

TURNS = "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"
"""DialoGPT's conversation: turns, each closed by the end token. For the catalog, since its folder has no template."""

CHAT_ML = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As SmolLM2-Instruct writes a conversation."""


def gpt2(folder: Path, seed: int = 11) -> Path:
    """As GPT-2: learned positions, 1,024 of them; one table for input and output; one token begins and ends texts."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = byte_level_bpe(
        folder,
        back=[END_OF_TEXT],
        special=[AddedToken(END_OF_TEXT, special=True)],
        config={"model_max_length": 1024},
    )
    end = vocabulary[END_OF_TEXT]
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=1024, n_embd=32, n_layer=2, n_head=4, bos_token_id=end, eos_token_id=end
    )
    return _saved(GPT2LMHeadModel(config), folder, seed)


def dialogpt(folder: Path) -> Path:
    """As DialoGPT: GPT-2's architecture with weights of its own, and no tokenizer.json."""
    gpt2(folder, seed=12)
    (folder / "tokenizer.json").unlink()
    return folder


def llama_chat(folder: Path) -> Path:
    """As SmolLM2-Instruct: a Llama in bfloat16 whose tokenizer splits numbers into digits, with its chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    special = [END_OF_TEXT, "<|im_start|>", "<|im_end|>"]
    vocabulary = byte_level_bpe(
        folder,
        front=special,
        special=[AddedToken(token, special=True) for token in special],
        digits=True,
        config={
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>",
            "unk_token": END_OF_TEXT,
            "model_max_length": 2048,
            "tokenizer_class": "GPT2Tokenizer",
        },
    )
    (folder / "chat_template.jinja").write_text(CHAT_ML, encoding="utf-8")
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model: Any = LlamaForCausalLM(config)
    return _saved(model.to(torch.bfloat16), folder, 13)


def _saved(model: Any, folder: Path, seed: int) -> Path:
    seeded(model, seed).save_pretrained(folder)
    return folder
