"""The card of a published checkpoint: true, whole, and not to be broken by what is in the data."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from finetune.results.card import Subject, card, front_matter, licence, plain
from finetune.results.snippet import literal, snippet

HOSTILE = "a|b\n# Injected <img src=x onerror=alert(1)> `code` [link](javascript:alert(1)) ```"
SUBJECT = Subject("user/moods", "owner/base", "base-in-the-suite", "", 1_234_567, "", True)
SYSTEM = {"kind": "base", "metrics": {}, "interval": [0, 0], "seconds": 1.0, "confusion": None, "failed": ""}


def facts(**changes: Any) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "name": "moods",
        "title": "Moods",
        "summary": "Sorts sentences by mood.",
        "base": "base-in-the-suite",
        "task": "text-classification",
        "data": {"source": {"file": "moods.csv"}},
        "method": {"name": "lora", "rank": 4, "target_modules": ["query"]},
        "training": {"learning_rate": 0.02, "max_length": 24, "dtype": "float32"},
        "evaluation": {"max_new_tokens": 8},
        "publishing": {"licence": "Apache-2.0", "limits": "It knows nothing.", "example": "What a day!"},
    }
    return {
        "recipe": recipe | changes,
        "labels": ["good", "bad"],
        "rows": {"read": 30, "repeated": 3, "empty": 1, "train": 15, "validation": 3, "test": 8},
        "leaked": 1,
        "status": {"steps": 12, "seconds": 61.0, "peak_memory": 1_300_000_000, "trainable": 50, "parameters": 1000},
        "versions": {"torch": "2.13.0", "peft": "0.21.2"},
        "cores": 2,
    }


def evaluation(*, beats: bool = True, confusion: dict[str, Any] | None = None) -> dict[str, Any]:
    matrix = confusion or {"labels": ["bad", "good"], "counts": [[3, 1], [0, 4]]}
    verdict = "Better than the best of its base." if beats else "Not shown to be better. Publishing it needs --force."
    tuned = SYSTEM | {"name": "tuned", "kind": "tuned", "metrics": {"accuracy": 0.875, "f1": 0.87}, "confusion": matrix}
    base = SYSTEM | {"name": "base, zero-shot", "metrics": {"accuracy": 0.5, "f1": 0.4}, "interval": [0.2, 0.8]}
    return {
        "rows": 8,
        "metric": "accuracy",
        "lead": [0.1, 0.6] if beats else [-0.1, 0.2],
        "beats_base": beats,
        "verdict": verdict,
        "systems": [base, SYSTEM | {"name": "base, few-shot", "failed": f"it broke {HOSTILE}"}, tuned],
    }


def text_of(written: str) -> str:
    """What stands below the front matter."""
    return written.split("\n---\n", 1)[1]


# -- for the Hub -----------------------------------------------------------------------------------


def test_the_hubs_own_client_reads_the_front_matter() -> None:
    read = ModelCard(card(SUBJECT, facts(), evaluation()))
    data: Any = read.data
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("owner/base", "peft", "text-classification")
    assert data.license == "apache-2.0"
    assert data.tags == ["lora"]
    found = {result.metric_type: result for result in data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {"accuracy": 0.875, "f1": 0.87}
    assert found["accuracy"].dataset_name == "moods.csv, 8 held-out rows"
    assert (found["accuracy"].task_type, found["accuracy"].dataset_type) == ("text-classification", "moods")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": {"name": "full"}}, {"library_name": "transformers", "base_model_relation": "finetune"}),
        ({"method": {"name": "qlora"}}, {"library_name": "peft", "tags": ["qlora", "lora"]}),
        ({"task": "conversational"}, {"pipeline_tag": "text-generation"}),
        ({"data": {"source": {"dataset": "user/rows", "config": None}}}, {"datasets": ["user/rows"]}),
    ],
)
def test_the_front_matter_follows_the_recipe(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert expected.items() <= front_matter(SUBJECT, facts(**changes), evaluation()).items()


def test_own_data_is_no_data_set_of_the_hub_and_what_was_not_measured_has_no_figures() -> None:
    assert not {"datasets", "model-index"} & front_matter(SUBJECT, facts(), None).keys()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MIT", {"license": "mit"}),
        ("BSD-3-Clause", {"license": "bsd-3-clause"}),
        ("other", {"license": "other"}),
        ("BBC: research only", {"license": "other", "license_name": "bbc-research-only"}),
    ],
)
def test_licences_are_told_as_the_hub_calls_them(name: str, expected: dict[str, str]) -> None:
    assert licence(name) == expected


# -- for people ------------------------------------------------------------------------------------


def test_it_says_what_was_measured_on_what_and_how() -> None:
    text = text_of(card(SUBJECT, facts(), evaluation()))
    headings = re.findall(r"^## (.*)$", text, re.M)
    assert headings == [
        *("What it does", "Before and after", "Data", "Training", "Limits", "Licence", "How to load it")
    ]
    for said in (
        "| base, zero-shot | 0.500 | 0.400 | 0.200–0.800 | 1 |",
        "| **tuned** | 0.875 | 0.870 |",
        "| good | 0 | 4 |",
        "30 rows were read; left out: 1 empty, 3 repeated. 15 were trained on, 3 chose the best step, and 8 were held",
        "12 steps in 61 s on 2 cores, at most 1.3 GB of memory. 50 of 1,000 parameters learned (5.00 %)",
        "| training.learning_rate | 0.02 |",
        "torch 2.13.0, peft 0.21.2",
        "![Loss over the steps of the training](loss.png)",
        "It knows nothing.",
        "`base-in-the-suite+user/moods`",
        'PeftModel.from_pretrained(base, "user/moods")',
    ):
        assert said in text
    assert "> **" not in text


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (evaluation(beats=False), "> **It did not beat its base.** Not shown to be better."),
        (None, "> **Not measured.**"),
    ],
)
def test_what_is_not_shown_to_be_better_says_so_above_all(measured: dict[str, Any] | None, said: str) -> None:
    text = text_of(card(SUBJECT, facts(), measured))
    assert said in "\n".join(text.strip().splitlines()[:4])
    assert "--force" not in text


def test_a_simpler_method_that_does_as_well_is_named_above_all() -> None:
    measured = evaluation()
    classic = SYSTEM | {"name": "TF-IDF", "kind": "baseline", "metrics": {"accuracy": 0.9, "f1": 0.9}}
    measured["systems"].insert(0, classic)
    text = text_of(card(SUBJECT, facts(), measured))
    assert (
        "> **A simpler method does as well.** TF-IDF, trained on the same rows: accuracy 0.900; this model: 0.875."
        in text
    )
    classic["metrics"] = {"accuracy": 0.8, "f1": 0.9}
    assert "simpler" not in text_of(card(SUBJECT, facts(), measured))


def test_less_perplexity_is_better() -> None:
    measured = evaluation()
    measured["metric"] = "perplexity"
    measured["systems"][-1]["metrics"] = {"perplexity": 9.0}
    classic = SYSTEM | {"name": "nearest", "kind": "baseline", "metrics": {"perplexity": 12.0}}
    measured["systems"].insert(0, classic)
    assert "simpler" not in text_of(card(SUBJECT, facts(), measured))
    classic["metrics"] = {"perplexity": 8.0}
    assert "perplexity 8.000; this model: 9.000." in text_of(card(SUBJECT, facts(), measured))


def test_a_base_of_four_bits_is_told() -> None:
    subject = Subject("user/moods", "owner/base", "base", "Q4_1", 1, "", False)
    text = text_of(card(subject, facts(), None))
    assert "a copy whose weights had been stored in four bits (Q4_1)" in text
    assert "loss.png" not in text
    assert "in four bits" not in text_of(card(SUBJECT, facts(), None))
    assert "held in four bits (NF4)" in text_of(card(SUBJECT, facts(method={"name": "qlora"}), None))


# -- data that would break it ----------------------------------------------------------------------


def test_labels_cannot_break_tables_or_bring_markup() -> None:
    hostile = facts(title=HOSTILE, summary=HOSTILE)
    hostile["labels"] = [HOSTILE, "bad"]
    matrix = {"labels": ["bad", HOSTILE], "columns": ["bad", HOSTILE, "(other)"], "counts": [[3, 1, 0], [0, 4, 0]]}
    written = card(SUBJECT, hostile, evaluation(confusion=matrix))
    front = yaml.safe_load(written.split("---\n")[1])
    assert front["model-index"][0]["name"] == HOSTILE
    shown = MarkdownIt("commonmark").enable("table").render(text_of(written))
    assert re.findall(r"<(?:img|a)[ >][^>]*", shown) == [
        '<img src="loss.png" alt="Loss over the steps of the training" /'
    ]
    assert shown.count("<h1>") == 1
    tables = [re.findall("<t[hd]", row) for row in re.findall("<tr>.*?</tr>", shown, re.S)]
    assert [len(cells) for cells in tables[4:7]] == [4, 4, 4]
    assert shown.count(html.escape(" ".join(HOSTILE.split()), quote=False)) == 6
    assert written.count("\n```") == 2  # one block, opened and closed


def test_many_labels_show_the_commonest_confusions() -> None:
    labels = [f"label {i}" for i in range(40)]
    counts = [[0] * 40 for _ in labels]
    for i in range(40):
        counts[i][i] = 5
        counts[i][(i + 1) % 40] = i
    text = text_of(card(SUBJECT, facts(), evaluation(confusion={"labels": labels, "counts": counts})))
    assert "| label 39 | label 0 | 39 |" in text
    assert "| label 1 | label 2 | 1 |" not in text
    assert "The commonest confusions among 40 labels." in text


@pytest.mark.parametrize(
    "text", ["plain words", "a|b", "<b>&</b>", "1\n2", "snake_case *x* `y` [z](w) ~$", "é 日本 🙂"]
)
def test_escaped_text_reads_as_it_was(text: str) -> None:
    escaped = plain(text)
    assert "\n" not in escaped
    shown = MarkdownIt("commonmark").enable("table").render(escaped)
    assert shown == f"<p>{html.escape(' '.join(text.split()), quote=False)}</p>\n"


def test_long_text_is_cut() -> None:
    assert plain("x" * 500) == "x" * 199 + "…"


@pytest.mark.parametrize("value", [HOSTILE, [HOSTILE, "b"], {"content": HOSTILE}, "é '\"\\ 日本"])
def test_code_holds_exactly_the_value(value: Any) -> None:
    import ast

    written = literal(value)
    assert ast.literal_eval(written) == value
    assert "```" not in written


def test_of_sound_a_whole_checkpoint_is_loaded() -> None:
    """An adapter for sound is published merged. What the code answers, `test_genres.py` compares with the Space."""
    code = snippet("user/x", "owner/base", facts(task="audio-classification"), "")
    compile(code, "README.md", "exec")
    assert 'AutoModelForAudioClassification.from_pretrained("user/x")' in code
    assert "owner/base" not in code
    assert "[:24]" in code  # the samples it was trained on


def test_a_prompt_with_a_place_for_the_text_is_filled_in() -> None:
    changed = facts(task="summarization")
    code = snippet("user/x", "owner/base", changed, "Sum up:\n{text}\nSummary:")
    assert f'text = "Sum up:\\n{changed["recipe"]["publishing"]["example"]}\\nSummary:"' in code
