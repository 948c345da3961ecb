"""Adapters through the front door: clients on two adapters and on the base, at once, on one copy of the base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError

from shared.checkpoints.catalog import Catalog
from shared.checkpoints.weights import verified_folder
from shared.engines.decoders import reference
from shared.settings import Settings
from shared.suite import Suite, serve
from tests.tiny_adapters import classifier_adapter, lora, randomised, write_metadata

pytestmark = pytest.mark.slow

MINILM, SMOLLM = "all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"
TEXT = "The striker scored twice in the final, and the keeper was sent off."


@pytest.fixture(scope="module")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """peft's model on the real SmolLM2, and the folder of two adapters it saved. The second is the one it still has."""
    from transformers import AutoModelForCausalLM

    real = Settings()
    folder = tmp_path_factory.mktemp("adapters")
    checkpoint = Catalog.read().choose_by_id(SMOLLM)
    weights = verified_folder(checkpoint, real, lambda *_: None)
    converted = reference.prepare(checkpoint, weights, real, lambda *_: None)
    model = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.float32)
    adapted = peft.get_peft_model(model, lora(target_modules=["q_proj", "v_proj"])).eval()
    for seed, name in ((1, "first"), (2, "second")):
        randomised(adapted, seed, 0.06)
        adapted.save_pretrained(folder / name)
        write_metadata(
            folder / name, checkpoint=SMOLLM, title=f"The {name}", task="conversational", instruction="Say it."
        )
    return adapted, folder


@pytest.fixture(scope="module")
def suite(smollm: tuple[Any, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    real = Settings()
    cache = tmp_path_factory.mktemp("cache")
    for name in ("weights", "converted"):
        (cache / name).symlink_to(real.cache_dir / name)
    (cache / "adapters").mkdir()
    for folder in smollm[1].iterdir():
        (cache / "adapters" / folder.name).symlink_to(folder)
    (minilm,) = (cache / "weights").glob(f"{MINILM}@*")
    kinds = {"topics": ["business", "sport", "tech"], "moods": ["negative", "positive"]}
    for seed, (name, labels) in enumerate(kinds.items()):
        config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
        classifier_adapter(minilm, cache / "adapters" / name, config, len(labels), seed=seed)
        write_metadata(cache / "adapters" / name, checkpoint=MINILM.lower(), title=name.capitalize(), labels=labels)
    running = serve(
        # In the precision that peft computes in; what the fast engines make of an adapter, `test_adapter` says.
        Settings(port=0, warm_examples=False, cache_dir=cache, profile="embedded", engines="reference", answer_cache=0),
        block=False,
    )
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(suite: Suite) -> Client:
    return Client(suite.url, verbose=False)


def loaded(client: Client) -> list[str]:
    report, _ = client.predict(api_name="/models")
    return sorted(row["checkpoint"] for row in report["checkpoints"])


def test_two_adapters_and_the_base_at_once(suite: Suite, client: Client) -> None:
    """Each client gets, to the last digit, what it gets alone; the base is in memory once."""
    calls: dict[str, dict[str, Any]] = {
        f"{SMOLLM}+first": {"api_name": "/generate", "prompt": "The river", "max_new_tokens": 12},
        f"{SMOLLM}+second": {"api_name": "/generate", "prompt": "The river", "max_new_tokens": 12},
        SMOLLM: {"api_name": "/generate", "prompt": "The river", "max_new_tokens": 12},
        f"{MINILM}+topics": {"api_name": "/zero_shot", "text": TEXT, "candidate_labels": "tech, sport, business"},
        f"{MINILM}+moods": {"api_name": "/sentiment", "text": TEXT},
        MINILM: {"api_name": "/zero_shot", "text": TEXT, "candidate_labels": "tech, sport, business"},
    }

    clients = {model: Client(suite.url, verbose=False) for model in calls}

    def ask(model: str, times: int = 1) -> list[Any]:
        return [clients[model].predict(model=model, **calls[model]) for _ in range(times)]

    alone = {model: ask(model)[0] for model in calls}
    answers = [json.dumps(alone[model][0]) for model in calls]
    assert len(set(answers)) == len(answers), "each says something of its own"
    with ThreadPoolExecutor(len(calls)) as at_once:
        running = {model: at_once.submit(ask, model, 2) for model in calls}
        for model, asked in running.items():
            for answer, run in asked.result():
                assert answer == alone[model][0], model
                base, _, adapter = model.partition("+")
                assert (run["checkpoint"], run["adapter"].partition("@")[0]) == (base, adapter)
                assert run["loaded"]
    assert loaded(client) == sorted(calls), "every base and every adapter once"


def test_greedy_text_on_the_real_model_is_that_of_peft(client: Client, smollm: tuple[Any, Path]) -> None:
    from transformers import AutoTokenizer

    from shared.engines.pretrained.precision import cpu_has_bfloat16

    theirs = smollm[0]
    tokenizer = AutoTokenizer.from_pretrained(theirs.config.name_or_path)
    if cpu_has_bfloat16():  # as the engine computes: the base's parameters alone
        for name, parameter in theirs.named_parameters():
            if "lora_" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = theirs.generate(input_ids=ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
    found, _ = client.predict("Once upon a time", max_new_tokens=20, model=f"{SMOLLM}+second", api_name="/generate")
    assert found == tokenizer.decode(expected, skip_special_tokens=True)


def test_every_endpoint_of_a_language_model(client: Client) -> None:
    model = f"{SMOLLM}+first"
    asked: dict[str, dict[str, Any]] = {
        "/chat": {"message": "Hello", "max_new_tokens": 8},
        "/next_token": {"prompt": "The"},
        "/summarize": {"text": "It rained. The river rose. People left.", "max_new_tokens": 8},
        "/few_shot": {"text": "I loved it"},
        "/zero_shot": {"text": "I loved it", "candidate_labels": "good, bad", "hypothesis_template": "It is {}"},
        "/sentiment": {"text": "I loved it"},
    }
    for name, values in asked.items():
        adapted = client.predict(model=model, api_name=name, **values)
        plain = client.predict(model=SMOLLM, api_name=name, **values)
        assert adapted[-1]["adapter"].startswith("first@"), name
        assert adapted[-1]["engine"] == f"{plain[-1]['engine']} + LoRA"
        assert adapted[0] != plain[0], name


def test_a_classifier_answers_with_its_own_labels(client: Client) -> None:
    topics = f"{MINILM}+topics"
    scores, run = client.predict(TEXT, candidate_labels="Sport, business", model=topics, api_name="/zero_shot")
    assert {row["label"] for row in scores["confidences"]} == {"Sport", "business"}
    assert sum(row["confidence"] for row in scores["confidences"]) == pytest.approx(1, abs=1e-5)
    assert run["limits"].startswith("It knows its own labels alone")
    few, *_ = client.predict(TEXT, candidate_labels="Sport, business", model=topics, api_name="/few_shot")
    assert few["confidences"] == scores["confidences"]
    mood, _ = client.predict(TEXT, model="+moods", api_name="/sentiment")
    assert {row["label"] for row in mood["confidences"]} == {"positive", "negative"}


@pytest.mark.parametrize(
    ("endpoint", "values", "said"),
    [
        (
            "/zero_shot",
            {"candidate_labels": "sport, cooking"},
            "has 'cooking', and the adapter topics was trained on its ",
        ),
        ("/zero_shot", {"candidate_labels": "sport, tech", "multi_label": True}, "multi_label: means nothing to the"),
        (
            "/zero_shot",
            {"candidate_labels": "sport, tech", "hypothesis_template": "On {}."},
            "hypothesis_template: means",
        ),
        ("/few_shot", {"candidate_labels": "sport, tech", "examples": [["a", "tech"]]}, "examples: means nothing"),
        ("/sentiment", {}, "topics on all-MiniLM-L6-v2 does not do text-classification"),
        ("/generate", {"prompt": "a"}, "does not do text-generation"),
    ],
)
def test_what_a_classifier_cannot_honour_is_refused_by_name(
    client: Client, endpoint: str, values: dict[str, Any], said: str
) -> None:
    given = values if "prompt" in values else {"text": TEXT, **values}
    with pytest.raises(AppError) as caught:
        client.predict(model=f"{MINILM}+topics", api_name=endpoint, **given)
    assert said in str(caught.value)


def test_a_batch_of_rows_by_an_adapter(client: Client, tmp_path: Path) -> None:
    from gradio_client import handle_file

    file = tmp_path / "rows.csv"
    file.write_text("text\nShares fell.\nA goal.\n", encoding="utf-8")
    settings = {"model": f"{MINILM}+topics", "candidate_labels": "sport, tech, business"}
    table, run = client.predict("zero_shot", handle_file(str(file)), settings, api_name="/batch")
    assert Path(table).read_text(encoding="utf-8").count(",0.") == 2
    assert run["adapter"].startswith("topics@")


def test_the_models_report_lists_them(client: Client) -> None:
    report, _ = client.predict(api_name="/models")
    rows = {row["id"]: row for row in report["adapters"]}
    first = rows[f"{SMOLLM}+first"]
    assert (first["title"], first["base"], first["method"], first["rank"]) == ("The first", SMOLLM, "LoRA", 4)
    assert rows[f"{MINILM}+topics"]["labels"] == ["business", "sport", "tech"]


def test_an_adapter_for_another_base_is_refused(suite: Suite, client: Client, smollm: tuple[Any, Path]) -> None:
    """By its shapes, where its description is wrong; both are named. The folder is named by who may: the admin."""
    wrong = smollm[1].parent / "wrong"
    wrong.mkdir()
    for file in (smollm[1] / "first").iterdir():
        (wrong / file.name).write_bytes(file.read_bytes())
    write_metadata(wrong, checkpoint=MINILM, task="zero-shot-classification")
    with pytest.raises(AppError, match="the adapter wrong was made for another base than all-MiniLM-L6-v2"):
        client.predict(TEXT, model=f"{MINILM}+{wrong}", api_name="/zero_shot")
    verified_folder(suite.runtime.catalog.choose_by_id(MINILM), suite.settings, lambda *_: None)


def test_only_the_admin_names_folders(suite: Suite, smollm: tuple[Any, Path]) -> None:
    far = Client(suite.url, verbose=False, headers={"X-Forwarded-For": "203.0.113.9"})
    with pytest.raises(AppError, match="only the admin may name a folder"):
        far.predict("a", model=f"{SMOLLM}+{smollm[1] / 'first'}", api_name="/generate")
