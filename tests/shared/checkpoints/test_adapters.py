"""Adapters on disk: described without torch, refused by name where they cannot be used, and found by theirs."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shared.checkpoints.adapter_folder import Adapter, read_folder
from shared.checkpoints.adapters import Adapters, is_path, is_repository
from shared.checkpoints.catalog import Catalog
from shared.checkpoints.peft_config import parsed
from shared.errors import Forbidden, MemoryRefused, SuiteError, UnknownCheckpoint, WeightsCorrupt
from shared.events import result_of
from shared.serving.context import Context
from shared.serving.lease import Lease
from shared.serving.runtime import Runtime, start
from shared.settings import Settings
from tests.tiny_adapters import on_disk

CATALOG = Catalog.read()
KNOWN = {c.id: c for c in CATALOG}
MINILM, SMOLLM = "all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"


def classifier(folder: Path, **changes: Any) -> Path:
    """A LoRA on one layer of MiniLM, with a head of three labels."""
    layer = "base_model.model.bert.encoder.layer.0.attention.self.query"
    tensors = {
        f"{layer}.lora_A.weight": np.ones((2, 384), np.float32),
        f"{layer}.lora_B.weight": np.ones((384, 2), np.float32),
        "base_model.model.classifier.weight": np.ones((3, 384), np.float32),
        "base_model.model.classifier.bias": np.ones(3, np.float32),
    }
    config = {"target_modules": ["layer.0.attention.self.query"], "task_type": "SEQ_CLS", "r": 2, **changes}
    return on_disk(folder, tensors, config, checkpoint="all-minilm-l6-v2", title="Topics", labels=["x", "y", "z"])


def language_model(folder: Path, base: str = "HuggingFaceTB/SmolLM2-135M-Instruct", **told: Any) -> Path:
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{layer}.lora_A.weight": np.ones((2, 576), np.float32),
        f"{layer}.lora_B.weight": np.ones((576, 2), np.float32),
    }
    config = {
        "target_modules": ["layers.0.self_attn.q_proj"],
        "task_type": "CAUSAL_LM",
        "r": 2,
        "base_model_name_or_path": base,
    }
    return on_disk(folder, tensors, config, **told)


# -- reading -------------------------------------------------------------------------------------------


def test_what_our_recipes_say(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "topics")
    (folder / "evaluation.json").write_text(json.dumps({"metric": "accuracy", "base": 0.72, "tuned": 0.957}))
    adapter = read_folder(folder, KNOWN)
    assert (adapter.name, adapter.title, adapter.bases[0]) == ("topics", "Topics", MINILM)
    assert adapter.bases[1:] == ("sentence-transformers/all-MiniLM-L6-v2",), "copies of one model share an adapter"
    assert (adapter.method, adapter.rank, adapter.labels, adapter.classifies) == ("LoRA", 2, ("x", "y", "z"), True)
    assert adapter.memory == 4 * (2 * 384 * 2 + 3 * 384 + 3)
    assert adapter.metric == "accuracy 0.957 (base 0.72)"
    assert adapter.id == "all-MiniLM-L6-v2+topics"


def test_an_adapter_of_somebody_else(tmp_path: Path) -> None:
    adapter = read_folder(language_model(tmp_path / "lora"), KNOWN)
    assert set(adapter.bases) == {SMOLLM, "HuggingFaceTB/SmolLM2-135M-Instruct"}
    assert (adapter.task, adapter.title, adapter.labels) == ("text-generation", "lora", ())
    folder = classifier(tmp_path / "bare")
    (folder / "suite_adapter.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/somebody/else/weights/all-MiniLM-L6-v2@1110a243"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert read_folder(folder, KNOWN).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_describing_needs_neither_torch_nor_peft(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "topics")
    code = (
        "import sys; from pathlib import Path; from shared.checkpoints.adapter_folder import read_folder;"
        "from shared.checkpoints.catalog import Catalog;"
        f"print(read_folder(Path({str(folder)!r}), {{c.id: c for c in Catalog.read()}}).title);"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules), set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "Topics", ran.stderr


def test_the_revision_follows_weights_and_descriptions(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "topics")
    revisions = {read_folder(folder, KNOWN).revision}
    weights = folder / "adapter_model.safetensors"
    tensors = {key: value * 2 for key, value in load_file(weights).items()}
    save_file(tensors, weights)
    revisions.add(read_folder(folder, KNOWN).revision)
    told = json.loads((folder / "suite_adapter.json").read_text())
    (folder / "suite_adapter.json").write_text(json.dumps({**told, "labels": ["z", "y", "x"]}))
    revisions.add(read_folder(folder, KNOWN).revision)
    assert len(revisions) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "made by the method 'PREFIX_TUNING', which is not computed here"),
        ({"use_dora": True}, "uses use_dora"),
        ({"bias": "all"}, "changes the base's biases"),
        ({"init_lora_weights": "pissa"}, "begun with init_lora_weights='pissa'"),
        ({"layer_replication": [[0, 2]]}, "uses layer_replication"),
        ({"target_parameters": ["experts.gate"]}, "uses target_parameters"),
        ({"task_type": "TOKEN_CLS"}, "is for 'TOKEN_CLS'"),
        ({"target_modules": "(a+)+$"}, "could take for ever"),
        ({"target_modules": "(unclosed"}, "broken pattern"),
        ({"alpha_pattern": {"a": "many"}}, "make no sense"),
        ({"r": [1]}, "make no sense"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsCorrupt) as caught:
        read_folder(classifier(tmp_path / "topics", **change), KNOWN)
    assert said in caught.value.message


def test_a_strangers_pattern_that_could_take_for_ever_is_not_tried() -> None:
    for pattern in ("(x+x+)+y", "(.*a){20}", "(a|a)*b", ".*" * 20 + "z", "(?=a)", r"(a)\1"):
        with pytest.raises(WeightsCorrupt, match="for ever"):
            parsed(json.dumps({"peft_type": "LORA", "target_modules": pattern}).encode(), "it")


def test_damaged_and_hostile_folders(tmp_path: Path) -> None:
    def broken(name: str, change: Callable[[Path], object]) -> str:
        folder = classifier(tmp_path / name)
        change(folder)
        with pytest.raises(SuiteError) as caught:
            read_folder(folder, KNOWN)
        return caught.value.message

    weights, config, ours = "adapter_model.safetensors", "adapter_config.json", "suite_adapter.json"
    assert "damaged or cut short" in broken("a", lambda f: (f / weights).write_bytes((f / weights).read_bytes()[:-9]))
    assert "damaged or cut short" in broken("b", lambda f: (f / weights).write_bytes(b"\xff" * 4000))
    assert "damaged or cut short" in broken("c", lambda f: (f / weights).write_bytes(b""))
    assert "no adapter_model.safetensors" in broken("d", lambda f: (f / weights).unlink())
    assert "no adapter_config.json" in broken("e", lambda f: (f / config).unlink())
    assert "not a JSON object" in broken("f", lambda f: (f / config).write_text("[" * 100_000))
    assert "far too large" in broken("g", lambda f: (f / config).write_bytes(b" " * (6 * 2**20)))
    assert "wrong at task" in broken("h", lambda f: (f / ours).write_text('{"task": "cooking"}'))
    assert "names 2 labels in suite_adapter.json, and its head has 3" in broken(
        "i", lambda f: (f / ours).write_text(json.dumps({"checkpoint": MINILM, "labels": ["a", "b"]}))
    )
    assert "names a label twice" in broken(
        "j", lambda f: (f / ours).write_text(json.dumps({"checkpoint": MINILM, "labels": ["a", "A", "b"]}))
    )
    assert "an adapter for my/own-base, which is no checkpoint" in broken(
        "k", lambda f: (f / ours).write_text(json.dumps({"checkpoint": "my/own-base"}))
    )
    ran = tmp_path / "ran"

    def as_pickle(folder: Path) -> None:
        class Hostile:
            def __reduce__(self) -> Any:
                return ran.touch, ()

        (folder / weights).unlink()
        (folder / "adapter_model.bin").write_bytes(pickle.dumps(Hostile()))

    assert "come as a pickle (adapter_model.bin), which can run code" in broken("l", as_pickle)
    assert not ran.exists()


# -- finding -------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A cache folder with the machine's weights and two adapters."""
    real = Settings()
    for name in ("weights", "converted"):
        (tmp_path / name).symlink_to(real.cache_dir / name)
    classifier(tmp_path / "adapters" / "topics")
    language_model(tmp_path / "adapters" / "poems", checkpoint=SMOLLM, task="conversational")
    return tmp_path


@pytest.fixture
def adapters(shelf: Path) -> Adapters:
    return Adapters(Settings(cache_dir=shelf), CATALOG)


def names(found: Any) -> list[str]:
    return [adapter.name for adapter in found]


def test_a_folder_that_was_just_written_is_offered(adapters: Adapters, shelf: Path) -> None:
    assert {"topics", "poems"} <= set(names(adapters))
    assert "topics" in names(adapters.for_task("zero-shot-classification"))
    assert "topics" not in names(adapters.for_task("text-classification")), "its labels are no sentiments"
    assert "poems" in names(adapters.for_task("conversational"))
    assert "poems" not in names(adapters.for_task("summarization"))
    assert "summarization" in adapters.able(adapters.by_name("poems")), "a request may name it for what its base does"
    classifier(shelf / "adapters" / "later")
    assert "later" in names(adapters)
    shutil.rmtree(shelf / "adapters" / "later")
    assert "later" not in names(adapters)


def test_a_broken_folder_is_not_offered_and_says_why(adapters: Adapters, shelf: Path) -> None:
    (shelf / "adapters" / "topics" / "adapter_model.safetensors").unlink()
    classifier(shelf / "adapters" / ".being-written")
    assert "topics" not in names(adapters)
    assert ".being-written" not in names(adapters)
    assert "adapter_model.safetensors" in adapters.problems()["topics"]
    with pytest.raises(UnknownCheckpoint, match="topics cannot be used"):
        adapters.by_name("topics")


def test_an_unknown_name_says_what_may_be_meant(adapters: Adapters) -> None:
    with pytest.raises(UnknownCheckpoint, match=r"no adapter of the name 'topic'; there are: .*Did you mean topics\?"):
        adapters.by_name("topic")


def test_added_and_removed(adapters: Adapters, tmp_path: Path) -> None:
    folder = classifier(tmp_path / "elsewhere" / "mine")
    adapters.add(adapters.read(str(folder)))
    assert "mine" in names(adapters)
    other = classifier(tmp_path / "other" / "topics")
    with pytest.raises(UnknownCheckpoint, match="there is an adapter topics already"):
        adapters.add(adapters.read(str(other)))
    for name in ("mine", "topics"):
        adapters.remove(name)
        assert name not in names(adapters)
        assert folder.exists()
    with pytest.raises(UnknownCheckpoint, match="cannot be an adapter's name"):
        adapters.read(str(tmp_path / "elsewhere" / "a name"))


def test_paths_and_repositories_are_told_apart() -> None:
    assert [is_path(name) for name in ("/a/b", "./a", "~/a", "..\\a", "C:\\a")] == [True] * 5
    assert not is_path("user/name")
    assert is_repository("user/name")
    assert not any(is_repository(name) for name in ("name", "a/b/c", "../a", "/a", "a/"))


def test_cleaning_the_cache_keeps_what_was_trained(tmp_path: Path) -> None:
    from shared.fetching.embedded import clean, mark

    folder = classifier(tmp_path / "cache" / "adapters" / "topics")
    (tmp_path / "cache" / "weights").mkdir()
    mark(tmp_path / "cache")
    assert "were kept" in clean(Settings(cache_dir=tmp_path / "cache"))
    assert (folder / "adapter_model.safetensors").exists()
    assert not (tmp_path / "cache" / "weights").exists()


# -- asking --------------------------------------------------------------------------------------------


@pytest.fixture
def runtime(shelf: Path) -> Iterator[Runtime]:
    runtime = start(Settings(cache_dir=shelf, profile="embedded"))
    yield runtime
    runtime.lane.close()
    runtime.cache.close()


def lent(context: Context, model: str, task: Any) -> Lease:
    return result_of(context.borrow(model, task))


ZERO_SHOT = "zero-shot-classification"


@pytest.mark.parametrize(
    ("model", "task", "refused", "said"),
    [
        ("all-MiniLM-L6-v2+topcs", ZERO_SHOT, UnknownCheckpoint, "Did you mean topics?"),
        ("all-MiniLM-L6-v2+", ZERO_SHOT, UnknownCheckpoint, "no adapter of the name ''"),
        (f"{SMOLLM}+topics", ZERO_SHOT, UnknownCheckpoint, f"topics is an adapter for {MINILM}, not for {SMOLLM}"),
        ("nothing+topics", ZERO_SHOT, UnknownCheckpoint, "no checkpoint of this name"),
        ("+topics", "text-generation", UnknownCheckpoint, "does not do text-generation; it does zero-shot"),
        ("+topics@0000", ZERO_SHOT, UnknownCheckpoint, "not at the one asked for"),
        ("+/etc", ZERO_SHOT, Forbidden, "only the admin may name a folder"),
        ("+user/name", ZERO_SHOT, Forbidden, "only the admin may name a folder"),
    ],
)
def test_what_a_visitor_may_not_or_cannot_name(
    runtime: Runtime, model: str, task: Any, refused: type[SuiteError], said: str
) -> None:
    with pytest.raises(refused) as caught:
        lent(Context(runtime), model, task)
    assert said in caught.value.message
    assert runtime.cache.report()["misses"] == 0, "refused before anything is read"


def test_the_admin_may_name_a_folder(runtime: Runtime, tmp_path: Path) -> None:
    folder = classifier(tmp_path / "elsewhere" / "mine")
    with lent(Context(runtime, admin=True), f"all-MiniLM-L6-v2+{folder}", ZERO_SHOT) as lease:
        assert lease.sequence_classifier().labels == ("x", "y", "z")
        assert lease.run_info().adapter.startswith("mine@")
    assert "mine" not in names(runtime.adapters), "named once is not offered to all"


def test_without_a_network_no_repository_is_asked(runtime: Runtime) -> None:
    with pytest.raises(SuiteError, match="nothing can be fetched from the Hub"):
        lent(Context(runtime, admin=True), "+user/name", ZERO_SHOT)


def test_base_and_adapter_are_two_entries_and_evicted_by_themselves(runtime: Runtime) -> None:
    with lent(Context(runtime), "+topics", ZERO_SHOT) as lease:
        rows = {row["checkpoint"]: row for row in runtime.cache.report()["checkpoints"]}
        assert set(rows) == {MINILM, f"{MINILM}+topics"}
        assert all(row["borrows"] == 1 for row in rows.values())
        assert rows[f"{MINILM}+topics"]["bytes"] == lease.adapter.memory if lease.adapter else False
    runtime.cache.unload(f"{MINILM}+topics")
    assert [row["checkpoint"] for row in runtime.cache.report()["checkpoints"]] == [MINILM]


def test_an_adapter_that_does_not_fit_beside_its_base_is_refused_at_once(runtime: Runtime) -> None:
    minilm = CATALOG.choose_by_id(MINILM)
    runtime.cache.budget = minilm.parameters * 4 + 1000
    with pytest.raises(MemoryRefused, match=r"\+topics, with its base, needs .* MB and the memory budget is"):
        lent(Context(runtime), "+topics", ZERO_SHOT)
    with lent(Context(runtime), "", ZERO_SHOT) as lease:
        assert lease.checkpoint.id == MINILM


def test_a_fork_of_the_process_knows_what_was_added(runtime: Runtime, tmp_path: Path) -> None:
    from shared.serving.zero_gpu import Inherited

    runtime.adapters.add(runtime.adapters.read(str(classifier(tmp_path / "elsewhere" / "mine"))))
    forked = Inherited({}, replace(runtime)).runtime()
    assert "mine" in names(forked.adapters)
    forked.lane.close()


def test_a_name_may_hold_markup_and_is_a_text_for_all_that(tmp_path: Path) -> None:
    from shared.page.comparison import about

    hostile = read_folder(
        language_model(tmp_path / "x", checkpoint=SMOLLM, title="<img src=x onerror=alert(1)>"), KNOWN
    )
    assert isinstance(hostile, Adapter)
    assert "<img" not in about(hostile)
