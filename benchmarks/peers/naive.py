"""The naive peer: what one writes in an afternoon with transformers and Gradio, one `gr.Interface` a task.

The same weights in float32, eager, each checkpoint loaded once, Gradio's default queue (one call of a function at a
time). No batching, no cache of prompts, no streaming. transformers cannot read the Firefox translations' weights, so
its translator is the suite's own network in plain float32 PyTorch, greedy, one sentence at a time.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gradio as gr
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Similarity:
    """Zero-shot classification by MiniLM: mean pooling as in its model card."""

    def __init__(self, folder: str, scale: float) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.scale = scale

    def encode(self, texts: list[str]) -> torch.Tensor:
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            hidden = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    def __call__(self, text: str, candidate_labels: str) -> dict[str, float]:
        names = split(candidate_labels)
        vectors = self.encode([text, *(f"This text is about {name}." for name in names)])
        probabilities = (self.scale * vectors[1:] @ vectors[0]).softmax(0)
        return dict(zip(names, probabilities.tolist(), strict=True))


class CausalLM:
    """SmolLM2, for completion, chat, summaries, and as a classifier by likelihood."""

    def __init__(self, folder: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        # Any: the types of transformers hide `generate`.
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def likelihood(self, prompt: str, answer: str) -> float:
        """Log-probability of the answer's tokens after the prompt, per token: one forward pass."""
        start = self.tokenizer(prompt, return_tensors="pt").input_ids
        end = self.tokenizer(answer, return_tensors="pt").input_ids
        with torch.no_grad():
            logits = self.model(torch.cat([start, end], dim=1)).logits[0]
        scores = logits[start.shape[1] - 1 : -1].log_softmax(-1)
        return scores.gather(1, end[0, :, None]).mean().item()

    def classify(self, prompt: str, names: list[str]) -> dict[str, float]:
        scores = torch.tensor([self.likelihood(prompt, f" {name}") for name in names])
        return dict(zip(names, scores.softmax(0).tolist(), strict=True))

    def write(self, prompt: str, max_new_tokens: int, **how: Any) -> tuple[str, int]:
        """The completion and its number of tokens."""
        batch = self.tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            out = self.model.generate(**batch, max_new_tokens=max_new_tokens, **(how or {"do_sample": False}))
        new = out[0, batch["input_ids"].shape[1] :]
        return self.tokenizer.decode(new, skip_special_tokens=True), len(new)

    def reply(self, messages: list[dict[str, str]], max_new_tokens: int) -> tuple[str, int]:
        prompt = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.write(str(prompt), max_new_tokens)


def split(candidate_labels: str) -> list[str]:
    return [name.strip() for name in candidate_labels.split(",")]


def zero_shot_lm(lm: CausalLM, text: str, candidate_labels: str) -> dict[str, float]:
    return lm.classify(f"Text: {text.strip()}\nThis text is about", split(candidate_labels))


def few_shot(lm: CausalLM, text: str, candidate_labels: str, examples: list[list[str]]) -> dict[str, float]:
    """Without the suite's calibration, which would be three more prompts a label."""
    blocks = [f"Classify this text:\n{example.strip()}\nLabel: {label}" for example, label in examples]
    prompt = "\n\n".join([*blocks, f"Classify this text:\n{text.strip()}\nLabel:"])
    return lm.classify(prompt, split(candidate_labels))


def sentiment(lm: CausalLM, text: str) -> dict[str, float]:
    return lm.classify(f"Review: {text.strip()}\nSentiment:", ["positive", "negative"])


def summarize(lm: CausalLM, instruction: str, text: str, max_new_tokens: int) -> tuple[str, int]:
    messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text.strip()}]
    return lm.reply(messages, max_new_tokens)


def generate(lm: CausalLM, prompt: str, max_new_tokens: int, do_sample: bool, seed: int) -> tuple[str, int]:
    if not do_sample:
        return lm.write(prompt, max_new_tokens)
    torch.manual_seed(seed)
    return lm.write(prompt, max_new_tokens, do_sample=True, temperature=0.7, top_k=50, top_p=0.95)


def float_translator(folder: Path) -> Any:
    """The suite's Marian engine with everything in float32, as on a processor without int8 instructions."""
    from shared.checkpoints.catalog import Catalog
    from shared.engines.firefox import reference
    from shared.settings import Settings

    checkpoint = Catalog.read().choose_by_id("firefox-translations-en-pt")
    with patch("torch.cpu._is_vnni_supported", return_value=False):
        engine = reference.load(checkpoint, folder, Settings(), lambda what, done, total: None)
    kind = type(engine.network.embeddings).__name__
    if kind != "FloatEmbeddings":
        raise SystemExit(f"the peer's translator must compute in float32, and has {kind}")
    return engine


def translate(translator: Any, text: str) -> tuple[str, int]:
    found = [translator.translate([sentence])[0] for sentence in SENTENCE_END.split(text.strip())]
    return " ".join(one.text for one in found), sum(one.new_tokens for one in found)


def build(minilm: str, smollm: str, marian: str, scale: float, instruction: str) -> gr.TabbedInterface:
    """A demo a task; those with the same checkpoint share it, as in one file they would."""
    similarity, lm, translator = Similarity(minilm, scale), CausalLM(smollm), float_translator(Path(marian))
    text, number = gr.Textbox, gr.Number

    def written() -> list[Any]:
        return [gr.Textbox(), gr.Number(label="new tokens")]

    demos = [
        # The names of the parameters are those of the API.
        gr.Interface(lambda text, candidate_labels: similarity(text, candidate_labels),
                     [text(), text()], gr.Label(), api_name="zero_shot"),
        gr.Interface(lambda text, candidate_labels: zero_shot_lm(lm, text, candidate_labels),
                     [text(), text()], gr.Label(), api_name="zero_shot_lm"),
        gr.Interface(lambda text, candidate_labels, examples: few_shot(lm, text, candidate_labels, examples),
                     [text(), text(), gr.JSON()], gr.Label(), api_name="few_shot"),
        gr.Interface(lambda text: sentiment(lm, text), [text()], gr.Label(), api_name="sentiment"),
        gr.Interface(lambda text, max_new_tokens: summarize(lm, instruction, text, int(max_new_tokens)),
                     [text(), number()], written(), api_name="summarize"),
        gr.Interface(lambda prompt, max_new_tokens, do_sample, seed:
                     generate(lm, prompt, int(max_new_tokens), do_sample, int(seed)),
                     [text(), number(), gr.Checkbox(), number()], written(), api_name="generate"),
        gr.Interface(lambda message, max_new_tokens:
                     lm.reply([{"role": "user", "content": message}], int(max_new_tokens)),
                     [text(), number()], written(), api_name="chat"),
        gr.Interface(lambda text: translate(translator, text), [text()], written(), api_name="translate"),
    ]  # fmt: skip
    return gr.TabbedInterface(demos, [str(demo.api_name) for demo in demos])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("minilm", "smollm", "marian", "instruction"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--scale", type=float, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    demo = build(given.minilm, given.smollm, given.marian, given.scale, given.instruction)
    demo.launch(server_name="127.0.0.1", server_port=given.port, quiet=True, ssr_mode=False)


if __name__ == "__main__":
    main()
