"""The forms of a trained checkpoint: written whole, read back by plain transformers, measured."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.base import shared_parts
from finetune.recipe import read_recipe
from finetune.results import export
from finetune.results.export import as_table, export_all, with_losses
from finetune.results.loading import load_trained
from finetune.run.train import train
from finetune.run_folder import run_of
from shared.settings import Settings
from tests.finetune.tiny_results import LABELS, TinyResults, write_moods
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv

pytestmark = pytest.mark.slow

FORMS = ["adapter on its base", "merged", "int8", "nf4"]
TEXT = "moon and cook make me sad"


@pytest.fixture
def online(hub: StandInHub, hub_env: HubEnv, tiny: TinyResults, tmp_path: Path) -> Settings:
    """A machine that has the bases within reach."""
    tiny.serve_bases(hub)
    return Settings(cache_dir=tmp_path / "cache", warm_examples=False)


def by_name(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {form["name"]: form for form in content["forms"]}


def logits(model: Any, processor: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(**processor(TEXT, return_tensors="pt")).logits


# -- what is written -------------------------------------------------------------------------------


def test_every_form_of_a_classifier_is_written_read_back_and_measured(
    tiny: TinyResults, online: Settings, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    said: list[str] = []
    out = tmp_path / "out"
    content = export_all(tiny.sorting, out, online, said.append)

    found = by_name(content)
    assert list(found) == FORMS
    assert {form["failed"] for form in content["forms"]} == {""}
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "export.md", "int8", "merged", "nf4"]
    assert json.loads((out / "export.json").read_text()) == content
    assert said[-1] == as_table(content) == (out / "export.md").read_text().rstrip("\n")
    for name in FORMS[1:]:
        assert found[name]["bytes"] == (out / name / "model.safetensors").stat().st_size
    assert found["nf4"]["bytes"] < found["int8"]["bytes"] < found["merged"]["bytes"]
    assert found["adapter on its base"]["bytes"] == (tiny.sorting / "adapter_model.safetensors").stat().st_size
    assert content["metric"] == "accuracy"
    assert content["rows"] == 7
    assert all(0 <= form["metric"] <= 1 and form["per_second"] > 0 for form in content["forms"])
    assert found["merged"]["lost"] == found["adapter on its base"]["lost"] == 0

    with shared_parts(online) as runtime:
        tuned = load_trained(tiny.sorting, None, runtime)
    right = logits(tuned.model, tuned.processor)
    for name, module, near in (("merged", "Linear", 1e-4), ("int8", "Linear8bitLt", 0.3), ("nf4", "Linear4bit", 2.0)):
        model: Any = AutoModelForSequenceClassification.from_pretrained(out / name)
        assert type(model.bert.encoder.layer[0].attention.self.query).__name__ == module
        assert type(model.classifier).__name__ == "Linear"  # a head is kept whole
        assert model.config.id2label == dict(enumerate(LABELS))
        assert "lora" not in " ".join(name for name, _ in model.named_parameters())
        assert logits(model, AutoTokenizer.from_pretrained(out / name)) == pytest.approx(right, abs=near)
    config = json.loads((out / "nf4" / "config.json").read_text())["quantization_config"]
    assert (config["bnb_4bit_quant_type"], config["bnb_4bit_use_double_quant"]) == ("nf4", True)


def test_what_nf4_cannot_compute_is_a_row_that_says_why(tiny: TinyResults, online: Settings, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out"
    (out / "nf4").mkdir(parents=True)  # of an earlier export, and no longer true
    content = export_all(tiny.replying, out, online, lambda _: None, rows=3)
    found = by_name(content)
    assert "inputs, and NF4 on a CPU needs a multiple of 64" in found["nf4"]["failed"]
    assert "not possible: this model has linear modules of 32 inputs" in (out / "export.md").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "export.md", "int8", "merged"]
    assert (content["metric"], content["unit"], content["rows"]) == ("perplexity", "tokens", 3)
    assert found["int8"]["lost"] == pytest.approx(found["int8"]["metric"] - found["merged"]["metric"], abs=1e-3)
    model: Any = AutoModelForCausalLM.from_pretrained(out / "int8")
    assert type(model.lm_head).__name__ == "Linear"
    assert AutoTokenizer.from_pretrained(out / "int8").chat_template


def test_a_whole_checkpoint_has_forms_too_and_missing_rows_leave_the_figures_out(
    tiny: TinyResults, online: Settings, tmp_path: Path
) -> None:
    said: list[str] = []
    moved = tiny.table.rename(tiny.table.with_name("moved.csv"))
    try:
        content = export_all(tiny.head, tmp_path / "out", online, said.append)
    finally:
        moved.rename(tiny.table)
    assert [form["name"] for form in content["forms"]] == ["as trained", *FORMS[1:]]
    assert {form["failed"] for form in content["forms"]} == {""}
    assert {form["metric"] for form in content["forms"]} == {form["per_second"] for form in content["forms"]} == {None}
    assert "there is no file moods.csv at that path" in content["unmeasured"]
    assert any("not measured" in line for line in said)


def test_a_full_disk_ends_one_form_and_leaves_no_half_of_it(
    tiny: TinyResults, online: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertForSequenceClassification

    whole: Callable[..., Any] = BertForSequenceClassification.save_pretrained

    def full(self: Any, folder: Path, **options: Any) -> None:
        whole(self, folder, **options)
        if Path(folder).name == ".int8.part":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BertForSequenceClassification, "save_pretrained", full)
    content = export_all(tiny.sorting, tmp_path / "out", online, lambda _: None, rows=2)
    assert "No space left" in by_name(content)["int8"]["failed"]
    assert not by_name(content)["nf4"]["failed"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "export.md", "merged", "nf4"]


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("headline", "lost"), [("accuracy", 0.1), ("perplexity", -0.1)])
def test_less_perplexity_is_better_and_less_accuracy_worse(headline: str, lost: float) -> None:
    forms = [export.Form("merged", metric=0.9), export.Form("int8", metric=0.8), export.Form("nf4", failed="no")]
    assert [form.lost for form in with_losses(forms, headline)] == [0, pytest.approx(lost), None]


# -- the real encoder ------------------------------------------------------------------------------


def test_minilm_in_all_forms(weights: Callable[[str], Path], tmp_path: Path) -> None:
    weights("all-MiniLM-L6-v2")
    table = write_moods(tmp_path / "moods.csv", 80)
    changes = ["training.max_steps=2", "training.max_length=24", "evaluation.rows=12", "data.split.validation=0"]
    recipe = read_recipe("topics", [*changes, f"data.source={{file: {table}}}"])
    settings = Settings(warm_examples=False)
    run = run_of(recipe, settings)
    with shared_parts(settings) as runtime:
        train(recipe, run, runtime)
    try:
        content = export_all(run.result, tmp_path / "out", settings, print)
    finally:
        shutil.rmtree(run.folder)
    found = by_name(content)
    assert {form["failed"] for form in content["forms"]} == {""}
    assert found["merged"]["bytes"] > 80e6
    assert found["nf4"]["bytes"] < found["int8"]["bytes"] < 0.45 * found["merged"]["bytes"]
