"""The lines of Python with which anybody loads a published checkpoint, without the suite."""

from __future__ import annotations

import json
from typing import Any

from finetune.methods import saves_adapter
from finetune.tasks.sequence_to_sequence import with_instruction

CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "conversational": "AutoModelForCausalLM",
    "summarization": "AutoModelForSeq2SeqLM",
    "translation": "AutoModelForSeq2SeqLM",
}

PREDICT = """\
import soundfile
import torch
from scipy.signal import resample_poly
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

extractor = AutoFeatureExtractor.from_pretrained({repo})
model = AutoModelForAudioClassification.from_pretrained({repo}).eval()


def predict(path):
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    sound = resample_poly(sound.mean(axis=1), extractor.sampling_rate, rate)[:{samples}]
    inputs = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.inference_mode():
        probabilities = model(inputs["input_values"]).logits.softmax(-1)[0]
    return model.config.id2label[int(probabilities.argmax())], float(probabilities.max())


print(*predict("recording.wav"))
"""

EXAMPLE = "Hello! How are you today?"


def snippet(repo: str, base: str, facts: dict[str, Any], instruction: str) -> str:
    """A whole program. It prints the answer to the recipe's example, or for sound, to a recording."""
    recipe = facts["recipe"]
    if recipe["task"] == "audio-classification":
        return PREDICT.format(repo=literal(repo), samples=recipe["training"]["max_length"])
    adapter = is_adapter(recipe)
    model = CLASSES[recipe["task"]]
    lines = [
        "import torch",
        *(["from peft import PeftModel"] if adapter else []),
        f"from transformers import {model}, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({literal(repo)})",
    ]
    text = recipe["publishing"]["example"] or EXAMPLE
    classifies = recipe["task"] == "text-classification"
    dtype = f"dtype=torch.{_dtype(recipe)}"
    if adapter:
        if classifies:
            lines.append(f"labels = {literal(facts['labels'])}")
            dtype += ", num_labels=len(labels), id2label=dict(enumerate(labels))"
        lines += [
            f"base = {model}.from_pretrained(",
            f"    {literal(base)}, {dtype}",
            ")",
            f"model = PeftModel.from_pretrained(base, {literal(repo)}).eval()",
        ]
    else:
        lines.append(f"model = {model}.from_pretrained({literal(repo)}, {dtype}).eval()")
    lines += ["", *(_classify(text, recipe) if classifies else _write(text, instruction, recipe))]
    return "\n".join(lines) + "\n"


def is_adapter(recipe: dict[str, Any]) -> bool:
    return saves_adapter(recipe["method"]["name"]) and recipe["task"] != "audio-classification"


def _dtype(recipe: dict[str, Any]) -> str:
    half = recipe["training"]["dtype"] == "bfloat16" and recipe["task"] == "conversational"
    return "bfloat16" if half and is_adapter(recipe) else "float32"


def _classify(text: str, recipe: dict[str, Any]) -> list[str]:
    length = recipe["training"]["max_length"]
    return [
        f"text = {literal(text)}",
        f'inputs = tokenizer(text, truncation=True, max_length={length}, return_tensors="pt")',
        "with torch.inference_mode():",
        "    probabilities = model(**inputs).logits.softmax(-1)[0]",
        "print(model.config.id2label[int(probabilities.argmax())], float(probabilities.max()))",
    ]


def _write(text: str, instruction: str, recipe: dict[str, Any]) -> list[str]:
    options = f"max_new_tokens={recipe['evaluation']['max_new_tokens']}, do_sample=False"
    if recipe["task"] == "conversational":
        message = {"role": "user", "content": f"{instruction}\n\n{text}" if instruction else text}
        return [
            f"messages = [{literal(message)}]",
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ")",
            "with torch.inference_mode():",
            f"    written = model.generate(**inputs, {options})",
            'print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        ]
    return [
        f"text = {literal(with_instruction(text, instruction))}",
        'inputs = tokenizer(text, return_tensors="pt")',
        "with torch.inference_mode():",
        f"    written = model.generate(**inputs, {options})",
        "print(tokenizer.decode(written[0], skip_special_tokens=True))",
    ]


def literal(value: Any) -> str:
    """Texts, or lists or dicts of them, as Python reads them too, in a form that cannot end a fenced block of code."""
    return json.dumps(value, ensure_ascii=False).replace("`", "\\u0060")
