"""What each task makes of its rows: loss on replies alone, packing that leaks nothing, models of two halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.base import shared_parts
from finetune.data.split import Item
from finetune.recipe import Recipe, check_recipe
from finetune.run.train import train
from finetune.run_folder import run_of
from finetune.tasks import conversation, sequence_to_sequence
from shared.serving.runtime import Runtime
from shared.settings import Settings
from tests.finetune.test_methods import losses
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv
from tests.tiny_checkpoints import seq2seq
from tests.tiny_checkpoints.decoders import llama_chat
from tests.tiny_checkpoints.encoders import wav2vec2_genres

ITEMS = [Item("hello", "hi there"), Item("how are you", "fine, and you?"), Item("bye", "see you")]


def recipe(**changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "tiny",
        "title": "Tiny",
        "summary": "",
        "base": "user/tiny",
        "task": "conversational",
        "data": {"source": {"file": "rows.csv"}},
        "method": {"name": "lora"},
        "training": {"learning_rate": 0.02, "batch_size": 4, "max_steps": 10, "max_length": 64, "evaluations": 1},
        "publishing": {"licence": "MIT", "limits": "Made for a test."},
    }
    return check_recipe(content | changes)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    folder = llama_chat(tmp_path_factory.mktemp("llama"))
    processor = conversation.load_processor(folder, recipe())
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), processor


def test_only_the_reply_is_learned(llama: tuple[Any, Any]) -> None:
    _, processor = llama
    row = conversation.encode(ITEMS[1], processor, recipe(instruction="Answer:"), ())
    learned = [token for token in row["labels"] if token != conversation.NO_LOSS]
    assert processor.decode(learned) == "fine, and you?<|im_end|>"
    text = processor.decode(row["input_ids"])
    assert text.endswith("<|im_start|>assistant\nfine, and you?<|im_end|>")
    assert "Answer:\n\nhow are you<|im_end|>" in text


def test_what_does_not_fit_is_cut_out_of_the_prompts_middle(llama: tuple[Any, Any]) -> None:
    _, processor = llama
    long = Item("word " * 200, "the reply")
    row = conversation.encode(long, processor, recipe(), ())
    text = processor.decode(row["input_ids"])
    assert len(row["input_ids"]) == len(row["labels"]) == 64
    assert text.startswith("<|im_start|>")
    assert text.endswith("assistant\nthe reply<|im_end|>")


def test_packed_conversations_do_not_see_each_other(llama: tuple[Any, Any]) -> None:
    model, processor = llama
    rows = [conversation.encode(item, processor, recipe(), ()) for item in ITEMS]
    packed = conversation.pack(rows, 400)
    assert len(packed) == 1
    batch = conversation.collate(packed, processor)
    with torch.inference_mode():
        together = model(**{key: value for key, value in batch.items() if key != "labels"}).logits[0]
        alone = [model(input_ids=torch.tensor([row["input_ids"]])).logits[0] for row in rows]
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
        # and the loss is that of the same rows side by side
        padded = conversation.collate(rows, processor)
        assert float(model(**batch).loss) == pytest.approx(float(model(**padded).loss), abs=1e-4)


def test_packing_fills_rows_and_breaks_no_conversation(llama: tuple[Any, Any]) -> None:
    _, processor = llama
    rows = [conversation.encode(item, processor, recipe(), ()) for item in ITEMS * 4]
    longest = max(len(row["input_ids"]) for row in rows)
    packed = conversation.pack(rows, 2 * longest)
    assert all(len(row["input_ids"]) <= 2 * longest for row in packed)
    assert sum(len(row["input_ids"]) for row in packed) == sum(len(row["input_ids"]) for row in rows)
    assert sum(row["position_ids"].count(0) for row in packed) == len(rows)


def test_a_replys_loss_is_that_of_its_tokens(llama: tuple[Any, Any]) -> None:
    model, processor = llama
    prompts = [conversation.prompt_ids(conversation.messages(item.input, ""), processor) for item in ITEMS]
    found = conversation.reply_losses(model, processor, ITEMS, prompts)
    for item, loss in zip(ITEMS, found, strict=True):
        row = conversation.encode(item, processor, recipe(), ())
        with torch.inference_mode():
            expected = model(**conversation.collate([row], processor)).loss
        assert loss == pytest.approx(float(expected), abs=1e-4)


# -- an encoder and a decoder ------------------------------------------------------------------------


@pytest.fixture
def online(hub: StandInHub, hub_env: HubEnv, tmp_path: Path) -> Iterator[Runtime]:
    with shared_parts(Settings(cache_dir=tmp_path / "cache")) as runtime:
        yield runtime


@pytest.mark.parametrize(
    ("make", "task", "instruction", "method"),
    [
        (seq2seq.t5, "summarization", "summarize:", {"name": "lora"}),
        (seq2seq.flan_t5, "summarization", "Summarize:", {"name": "bitfit"}),
        (seq2seq.marian, "translation", "", {"name": "lora"}),
        (seq2seq.t5, "translation", "translate English to French:", {"name": "full"}),
    ],
)
def test_sequence_to_sequence(
    make: Callable[[Path], None],
    task: str,
    instruction: str,
    method: dict[str, str],
    hub: StandInHub,
    online: Runtime,
    tmp_path: Path,
) -> None:
    make(tmp_path / "tiny")
    hub.add("user/tiny", tmp_path / "tiny")
    table = tmp_path / "rows.csv"
    numbers = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    pairs = [f"{a} {b} {c},{c} {b}\n" for a in numbers for b in numbers[:3] for c in numbers[:2]]
    table.write_text("text,label\n" + "".join(pairs), encoding="utf-8")
    # BitFit trains a few hundred numbers of this tiny model, and learns slowly.
    training = {"learning_rate": 0.05, "batch_size": 4, "max_steps": 24, "max_length": 64, "evaluations": 1}
    more = {"training": training} if method["name"] == "bitfit" else {}
    chosen = recipe(task=task, instruction=instruction, method=method, data={"source": {"file": str(table)}}, **more)
    run = run_of(chosen, online.settings)
    prepared, _ = train(chosen, run, online)
    found = losses(run)
    assert sum(found[-3:]) < sum(found[:3])

    from finetune.results.loading import load_trained

    items = prepared.parts.test[:3]
    again = load_trained(run.folder, None, online)
    answer = [
        prepared.task.answers(model.eval(), prepared.processor, items, chosen, (), lambda *_: None)
        for model in (prepared.model, again.model)
    ]
    assert answer[0] == answer[1]


def test_of_a_long_text_the_end_is_cut_and_not_that_of_the_prompt(tmp_path: Path) -> None:
    seq2seq.flan_t5(tmp_path)
    chosen = recipe(task="summarization", instruction="The house:\n{text}\nThe garden:")
    processor = sequence_to_sequence.load_processor(tmp_path, chosen)

    def read(text: str) -> str:
        ids = sequence_to_sequence.encode(Item(text, "x"), processor, chosen, ())["input_ids"]
        assert len(ids) <= chosen.training.max_length
        return processor.decode(ids, skip_special_tokens=True)

    assert read("Close the window.") == "The house: Close the window. The garden:"
    long = read("Close the window. " * 40)
    assert long.startswith("The house: Close the window. Close")
    assert long.endswith("The garden:")
    assert len(processor(long)["input_ids"]) > chosen.training.max_length - 6


# -- sound -------------------------------------------------------------------------------------------


def test_audio_classification(hub: StandInHub, online: Runtime, tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    from finetune.results.loading import load_trained

    wav2vec2_genres(tmp_path / "tiny")
    hub.add("user/tiny", tmp_path / "tiny")
    chance = np.random.default_rng(0)
    for label, ending, loud in (("noise", "wav", 0.5), ("hum", "flac", 0.02)):
        (tmp_path / "genres" / label).mkdir(parents=True)
        for i in range(12):
            time = np.arange(6_000) / 8_000
            tone = np.sin(2 * np.pi * 60 * time) if label == "hum" else chance.normal(size=6_000)
            sound = loud * tone + 0.001 * chance.normal(size=6_000)
            soundfile.write(tmp_path / "genres" / label / f"{i}.{ending}", np.clip(sound, -1, 1), 8_000)
    chosen = recipe(
        task="audio-classification",
        method={"name": "full"},
        data={"source": {"audio_folder": str(tmp_path / "genres")}, "input": "audio", "split": {"validation": 0.1}},
        training={"learning_rate": 0.001, "batch_size": 8, "max_steps": 40, "max_length": 4_000, "evaluations": 1},
    )
    run = run_of(chosen, online.settings)
    prepared, _ = train(chosen, run, online)
    assert prepared.labels == ["hum", "noise"]
    found = losses(run)
    assert sum(found[-10:]) < 0.95 * sum(found[:10])
    items = [*prepared.parts.test, *prepared.parts.train]
    again = load_trained(run.folder, None, online)
    answer = [
        prepared.task.answers(model.eval(), prepared.processor, items, chosen, prepared.labels, lambda *_: None)
        for model in (prepared.model, again.model)
    ]
    assert answer[0] == answer[1]
    assert set(answer[0]) <= {"hum", "noise"}
