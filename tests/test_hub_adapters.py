"""An adapter on a Hub: pushed by peft, added by its id, fetched when it is first used, on a base of the same Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gradio_client.exceptions import AppError

from shared.errors import NeedsDownload, SuiteError
from shared.serving.context import Context
from shared.serving.endpoint import Endpoint, collect
from shared.serving.model_task import OneCheckpoint, act
from tests.course_hub import Course, course
from tests.tiny_adapters import causal_adapter, lora, write_metadata

BASE, LORA = "HuggingFaceTB/SmolLM2-135M-Instruct", "user/tiny-lora"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    with course(tmp_path_factory.mktemp("course")) as taught:
        yield taught


@pytest.fixture(scope="module")
def pushed(taught: Course, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """peft's model, after peft pushed its adapter; its config names the base as on the Hub."""
    folder = tmp_path_factory.mktemp("lora")
    model = causal_adapter(taught.folders[BASE], folder, lora(target_modules="all-linear"), strength=0.5)
    model.peft_config["default"].base_model_name_or_path = BASE
    model.push_to_hub(LORA, token="hf_writer")
    assert {CONFIG, WEIGHTS} <= set(taught.hub.files(LORA))
    return model


def models_tab(taught: Course, action: str, name: str) -> Any:
    """What the Models tab's button does, as the admin."""
    context = Context(taught.suite.runtime, admin=True)
    endpoint = Endpoint(act, OneCheckpoint, {})
    return collect(endpoint.run({"action": action, "checkpoint": name}, context, taught.suite.traffic)).result.said


def test_added_by_its_id_and_fetched_on_first_use(taught: Course, pushed: Any) -> None:
    said = models_tab(taught, "add adapter", LORA)
    assert "tiny-lora was added: LoRA, rank 4 on" in said
    files = [r for r in taught.hub.requests if LORA in r.path and WEIGHTS in r.path]
    assert files == [], "to describe it, its weights are not asked for"
    adapters = taught.suite.runtime.adapters
    adapter = adapters.by_name(LORA)
    assert BASE in adapter.bases
    # A visitor of the page is asked first, once for both.
    visitor = Context(taught.suite.runtime, may_download=False)
    with pytest.raises(NeedsDownload, match=f"{BASE} with {LORA}"):
        list(visitor.borrow(f"{BASE}+{LORA}", "text-generation"))
    # A program has named it.
    text, run = taught.ask("generate", prompt="The house is", max_new_tokens=12, model=f"{BASE}+{LORA}")
    plain, _ = taught.ask("generate", prompt="The house is", max_new_tokens=12, model=BASE)
    assert text != plain
    (commit,) = {adapter.revision for adapter in adapters if adapter.name == LORA}
    assert run["adapter"] == f"{LORA}@{commit}"
    assert len(commit) == 40
    with taught.suite.runtime.cache.hold(taught.suite.runtime.catalog.choose_by_id(BASE)) as borrowed:
        engine = borrowed.engine
        ids = torch.tensor([engine.tokenize("The house is")])
        theirs = pushed.float()
        with torch.no_grad():
            out = theirs.generate(input_ids=ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
        assert text == engine.detokenize([token for token in out if token != 2])
    kept = taught.suite.settings.cache_dir / "hub"
    (note,) = [json.loads(f.read_text()) for f in kept.glob("user--tiny-lora@*.json")]
    assert {CONFIG, WEIGHTS} <= set(note["files"]), "each file with its size and hash, and the commit"
    assert note["commit"] == commit


def test_altered_on_disk_it_is_not_loaded(taught: Course, pushed: Any) -> None:
    model = f"{BASE}+{LORA}"
    taught.ask("next_token", prompt="a", model=f"{BASE}+{LORA}")
    adapter = taught.suite.runtime.adapters.by_name(LORA)
    assert adapter.path is not None
    file = (adapter.path / WEIGHTS).resolve()
    content = file.read_bytes()
    models_tab(taught, "unload", adapter.id)
    file.write_bytes(content[:-4] + b"\x01\x02\x03\x04")
    with pytest.raises(AppError, match="was altered or cut short"):
        taught.ask("next_token", prompt="a", model=model)
    taught.ask("next_token", prompt="a", model=model)  # fetched anew


def test_our_description_comes_with_it(taught: Course, tmp_path: Path) -> None:
    causal_adapter(taught.folders[BASE], tmp_path / "poems")
    write_metadata(
        tmp_path / "poems", checkpoint=BASE, title="Poems", task="conversational", instruction="Write a poem."
    )
    taught.hub.add("user/poems", tmp_path / "poems")
    assert models_tab(taught, "add adapter", "user/poems").startswith("Poems was added")
    _, run = taught.ask("chat", message="Hello", max_new_tokens=5, model=f"{BASE}+user/poems")
    assert run["adapter"].startswith("user/poems@")
    assert models_tab(taught, "remove", f"{BASE}+user/poems").startswith("user/poems is no longer offered")
    assert "user/poems" not in [adapter.name for adapter in taught.suite.runtime.adapters]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({CONFIG: "{}", "adapter_model.bin": b"\x80\x04."}, "pickle"),
        ({CONFIG: "{}"}, "has no adapter_model.safetensors"),
        ({"config.json": "{}", "model.safetensors": b"x"}, "no adapter_config.json, so it is not an adapter"),
        ({CONFIG: '{"peft_type": "LOHA"}', WEIGHTS: b"x" * 100}, "the method 'LOHA'"),
        (
            {CONFIG: '{"peft_type": "LORA", "base_model_name_or_path": "who/knows"}', WEIGHTS: b"x" * 100},
            "an adapter for who/knows, which is no checkpoint of this suite",
        ),
    ],
)
def test_what_is_no_adapter_for_us_is_refused_before_it_is_fetched(
    taught: Course, files: dict[str, Any], said: str
) -> None:
    repo = f"user/bad-{abs(hash(said)) % 10_000}"
    taught.hub.add(repo, files)
    with pytest.raises(SuiteError) as caught:
        models_tab(taught, "add adapter", repo)
    assert said in caught.value.message
    assert not [r for r in taught.hub.requests if repo in r.path and r.path.endswith((WEIGHTS, ".bin"))]


def test_unknown_repositories_and_bases(taught: Course) -> None:
    with pytest.raises(SuiteError, match="no repository user/nowhere"):
        models_tab(taught, "add adapter", "user/nowhere")
    with pytest.raises(SuiteError, match="neither a folder's path"):
        models_tab(taught, "add adapter", "not an id")
