"""The peer: what one writes in an afternoon with transformers and Gradio, one `gr.Interface` a task.

The same weights in float32, each Interface with a model of its own as five demos would have, Gradio's default
queue (one call of a function at a time). No batching, no cache of prompts, no streaming. Run by `python -m benchmarks`.
"""

from __future__ import annotations

import argparse
from typing import Any

import gradio as gr
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer


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
        names = [name.strip() for name in candidate_labels.split(",")]
        vectors = self.encode([text, *(f"This text is about {name}." for name in names)])
        probabilities = (self.scale * vectors[1:] @ vectors[0]).softmax(0)
        return dict(zip(names, probabilities.tolist(), strict=True))


class CausalLM:
    """SmolLM2, loaded once for each demo."""

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

    def write(self, prompt: str, max_new_tokens: int) -> str:
        batch = self.tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            out = self.model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        return self.tokenizer.decode(out[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def zero_shot_lm(lm: CausalLM, text: str, candidate_labels: str) -> dict[str, float]:
    names = [name.strip() for name in candidate_labels.split(",")]
    return lm.classify(f"Text: {text.strip()}\nThis text is about", names)


def sentiment(lm: CausalLM, text: str) -> dict[str, float]:
    return lm.classify(f"Review: {text.strip()}\nSentiment:", ["positive", "negative"])


def summarize(lm: CausalLM, instruction: str, text: str, max_new_tokens: int) -> str:
    messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text.strip()}]
    prompt = lm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return lm.write(str(prompt), max_new_tokens)


def build(minilm: str, smollm: str, scale: float, instruction: str) -> gr.TabbedInterface:
    """Five demos, each with its own copy of its model."""
    similarity = Similarity(minilm, scale)
    labeller, judge, writer, completer = (CausalLM(smollm) for _ in range(4))
    text, number = gr.Textbox, gr.Number
    demos = [
        # The names of the parameters are those of the API.
        gr.Interface(lambda text, candidate_labels: similarity(text, candidate_labels),
                     [text(), text()], gr.Label(), api_name="zero_shot"),
        gr.Interface(lambda text, candidate_labels: zero_shot_lm(labeller, text, candidate_labels),
                     [text(), text()], gr.Label(), api_name="zero_shot_lm"),
        gr.Interface(lambda text: sentiment(judge, text), [text()], gr.Label(), api_name="sentiment"),
        gr.Interface(lambda text, max_new_tokens: summarize(writer, instruction, text, int(max_new_tokens)),
                     [text(), number()], gr.Textbox(), api_name="summarize"),
        gr.Interface(lambda prompt, max_new_tokens: completer.write(prompt, int(max_new_tokens)),
                     [text(), number()], gr.Textbox(), api_name="generate"),
    ]  # fmt: skip
    return gr.TabbedInterface(demos, ["Similarity", "Likelihood", "Sentiment", "Summary", "Completion"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("minilm", "smollm", "instruction"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--scale", type=float, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    demo = build(given.minilm, given.smollm, given.scale, given.instruction)
    demo.launch(server_name="127.0.0.1", server_port=given.port, quiet=True, ssr_mode=False)


if __name__ == "__main__":
    main()
