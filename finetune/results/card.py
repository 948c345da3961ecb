"""The README.md of a published checkpoint: front matter that the Hub reads, and what a person should know of it.

Everything that comes from data or from a recipe is escaped: a label may hold pipes, line breaks or HTML.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

import yaml

from finetune.results.evaluation import as_table, confusion_table
from finetune.results.snippet import is_adapter, snippet
from finetune.run_folder import duration

PIPELINES = {"conversational": "text-generation"}
"""The Hub's name of a task, where it is not ours."""

METRICS = {"rougeL": "rouge", "rouge1": "rouge", "rouge2": "rouge", "chrf": "chrf"}
"""The Hub's name of a metric, where it is not ours."""

LICENCES = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "openrail"),
    *("gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0"),
    *("cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
}
"""Those of the Hub's identifiers that are met here; any other licence is `other` with its name."""

CORPORA = {
    "bbc-news": "BBC News (Greene & Cunningham 2006), 2,225 articles of 2004 and 2005. The articles are the BBC's.",
    "bbc-headlines": "BBC News (Greene & Cunningham 2006), articles and their headlines. The articles are the BBC's.",
    "spam-assassin": "SpamAssassin's public corpus of mail (CC0-1.0): the first mail of each thread, at most 20 of one "
    "sender, without headers, quotations and signatures; all mails of a sender are on one side.",
    "chatterbot": "The English part of ChatterBot's corpus of short exchanges (BSD-3-Clause).",
}

LARGEST_MATRIX = 20
"""Labels; of more, the commonest confusions are listed."""


@dataclass(frozen=True)
class Subject:
    """What the card is about, beside what the run recorded."""

    repo: str
    base: str
    """Id of the base's repository."""
    checkpoint: str
    """Id of the base in the suite."""
    four_bits: str
    """Of a base that was read from four-bit weights: their format, such as `Q4_1`; else ""."""
    nbytes: int
    """Of the published weights."""
    instruction: str
    plot: bool


def card(subject: Subject, facts: dict[str, Any], evaluation: dict[str, Any] | None) -> str:
    """`facts` is training.json, `evaluation` is evaluation.json, or None where nothing was measured."""
    front = yaml.safe_dump(front_matter(subject, facts, evaluation), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{body(subject, facts, evaluation)}\n"


# -- for the Hub -----------------------------------------------------------------------------------


def front_matter(subject: Subject, facts: dict[str, Any], evaluation: dict[str, Any] | None) -> dict[str, Any]:
    recipe = facts["recipe"]
    adapter = is_adapter(recipe)
    known = {
        "base_model": subject.base,
        "base_model_relation": "adapter" if adapter else "finetune",
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": PIPELINES.get(recipe["task"], recipe["task"]),
        **licence(recipe["publishing"]["licence"]),
        "datasets": [recipe["data"]["source"]["dataset"]] if "dataset" in recipe["data"]["source"] else None,
        "tags": list(
            dict.fromkeys([recipe["method"]["name"], *(["lora"] if "lora" in recipe["method"]["name"] else [])])
        ),
        "model-index": [model_index(facts, evaluation)] if evaluation else None,
    }
    return {key: value for key, value in known.items() if value}


def licence(name: str) -> dict[str, str]:
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
    if slug in LICENCES or slug in ("other", ""):
        return {"license": slug or "other"}
    return {"license": "other", "license_name": slug}


def model_index(facts: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    recipe = facts["recipe"]
    task, tuned = PIPELINES.get(recipe["task"], recipe["task"]), evaluation["systems"][-1]
    kind, name = data_name(recipe["data"]["source"])
    rows = f"{evaluation['rows']} held-out rows"
    return {
        "name": recipe["title"],
        "results": [
            {
                "task": {"type": task},
                "dataset": {"type": kind, "name": f"{name}, {rows}", "split": "test"},
                "metrics": [
                    {"type": METRICS.get(metric, metric), "name": metric, "value": value}
                    for metric, value in tuned["metrics"].items()
                ],
            }
        ],
    }


def data_name(source: dict[str, Any]) -> tuple[str, str]:
    """An identifier for the Hub, and a name for people. Of a path, only its last part."""
    if "dataset" in source:
        return source["dataset"], source["dataset"]
    named = str(source.get("corpus") or source.get("file") or source.get("audio_folder"))
    name = re.split(r"[/\\]", named.rstrip("/\\"))[-1]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower().rpartition(".")[0] or name.lower()).strip("-")
    return slug or "own-data", name


# -- for people ------------------------------------------------------------------------------------


def body(subject: Subject, facts: dict[str, Any], evaluation: dict[str, Any] | None) -> str:
    recipe, publishing = facts["recipe"], facts["recipe"]["publishing"]
    parts = [f"# {plain(recipe['title'])}", warning(evaluation), simpler_method(evaluation), plain(recipe["summary"])]
    parts += ["## What it does", *description(subject, facts)]
    parts += ["## Before and after", *results(evaluation)]
    parts += ["## Data", *data(facts)]
    parts += ["## Training", *training(subject, facts)]
    if subject.plot:
        parts.append("![Loss over the steps of the training](loss.png)")
    parts += ["## Limits", plain(publishing["limits"], 2000)]
    terms = plain(publishing["licence"])
    if terms.lower() == "other":
        terms = "None of the usual ones: see the limits"
    parts += ["## Licence", f"{terms}. The base, {subject.base}, has its own."]
    parts += ["## How to load it", *loading(subject, facts)]
    return "\n\n".join(part for part in parts if part)


def warning(evaluation: dict[str, Any] | None) -> str:
    """What stands above all where it is not shown to be any good."""
    if evaluation is None:
        return "> **Not measured.** Nobody has compared it with its base."
    if not evaluation["beats_base"] and evaluation["lead"] is not None:
        return f"> **It did not beat its base.** {verdict(evaluation)}"
    return ""


def simpler_method(evaluation: dict[str, Any] | None) -> str:
    """A method without any foundation model that does as well, if there is one."""
    if evaluation is None:
        return ""
    headline = evaluation["metric"]
    sign = -1 if headline == "perplexity" else 1
    figures = {s["name"]: sign * s["metrics"][headline] for s in evaluation["systems"] if headline in s["metrics"]}
    classic = {
        s["name"]: figures[s["name"]] for s in evaluation["systems"] if s["kind"] == "baseline" and s["name"] in figures
    }
    best = max(classic, key=lambda name: classic[name], default="")
    tuned = evaluation["systems"][-1]["name"]
    if not best or classic[best] < figures.get(tuned, float("inf")):
        return ""
    return (
        f"> **A simpler method does as well.** {plain(best)}, trained on the same rows: {headline} "
        f"{sign * classic[best]:.3f}; this model: {sign * figures[tuned]:.3f}."
    )


def verdict(evaluation: dict[str, Any]) -> str:
    return plain(evaluation["verdict"].replace("Publishing it needs --force.", ""), 500)


def description(subject: Subject, facts: dict[str, Any]) -> list[str]:
    recipe, labels = facts["recipe"], facts["labels"]
    found = []
    if labels:
        found.append(f"It sorts its input into {len(labels)} labels: {', '.join(plain(label) for label in labels)}.")
    if subject.instruction and recipe["task"] != "text-classification":
        how = "put into this prompt" if "{text}" in subject.instruction else "preceded by this instruction"
        found.append(f"Every input is {how}: {plain(subject.instruction, 1000)}")
    if recipe["publishing"]["example"]:
        found.append(f"To try: {plain(recipe['publishing']['example'], 1000)}")
    return found or [f"Task: {recipe['task']}."]


def results(evaluation: dict[str, Any] | None) -> list[str]:
    if evaluation is None:
        return ["It was not measured."]
    systems = [system | {"failed": plain(system["failed"])} for system in evaluation["systems"]]
    found = [as_table({**evaluation, "systems": systems, "verdict": verdict(evaluation)})]
    matrix = systems[-1]["confusion"]
    if matrix:
        found += ["The tuned model's answers:", confusions(matrix)]
    return found


def confusions(matrix: dict[str, Any]) -> str:
    columns = matrix.get("columns", matrix["labels"])
    if len(columns) <= LARGEST_MATRIX:
        escaped = {key: [plain(label) for label in matrix[key]] for key in ("labels", "columns") if key in matrix}
        return confusion_table({**matrix, **escaped})
    wrong = [
        (count, label, column)
        for label, counts in zip(matrix["labels"], matrix["counts"], strict=True)
        for column, count in zip(columns, counts, strict=True)
        if count and label != column
    ]
    lines = ["| true | answered | rows |", "|---|---|---|"]
    lines += [
        f"| {plain(a)} | {plain(b)} | {n} |" for n, a, b in sorted(wrong, key=lambda row: -row[0])[:LARGEST_MATRIX]
    ]
    return "\n".join([*lines, "", f"The commonest confusions among {len(matrix['labels'])} labels."])


def data(facts: dict[str, Any]) -> list[str]:
    source, rows = facts["recipe"]["data"]["source"], facts["rows"]
    _, name = data_name(source)
    left_out = {
        "empty": "empty",
        "repeated": "repeated",
        "contradictory": "with an input that another row had with another target",
    }
    out = [f"{rows[key]:,} {words}" for key, words in left_out.items() if rows.get(key)]
    return [
        CORPORA.get(name, f"Rows of {plain(name)}."),
        f"{rows['read']:,} rows were read"
        + (f"; left out: {', '.join(out)}" if out else "")
        + f". {rows['train']:,} were trained on, {rows['validation']:,} chose the best step, and {rows['test']:,} were "
        "held out; near-duplicates were kept together, so no held-out row has a copy in training"
        + (f" ({facts['leaked']:,} that became one by cutting were removed)" if facts.get("leaked") else "")
        + ".",
    ]


def training(subject: Subject, facts: dict[str, Any]) -> list[str]:
    recipe, status = facts["recipe"], facts["status"]
    base = f"Base: {subject.base}"
    if re.fullmatch("[0-9a-f]{40}", str(facts.get("base", {}).get("revision"))):
        base += f" at commit {facts['base']['revision'][:12]}"
    if subject.checkpoint != subject.base:
        base += f" (`{subject.checkpoint}` in the suite)"
    if subject.four_bits:
        base += (
            f", from a copy whose weights had been stored in four bits ({subject.four_bits}) and read back. On the "
            "original weights its answers differ a little"
        )
    if recipe["method"]["name"] == "qlora":
        base += ". While it was trained, the base was held in four bits (NF4)"
    share = 100 * status["trainable"] / max(status["parameters"], 1)
    settings = {f"method.{key}": value for key, value in recipe["method"].items()}
    settings |= {f"training.{key}": value for key, value in recipe["training"].items()}
    rows = "\n".join(f"| {key} | {plain(as_text(value))} |" for key, value in settings.items())
    versions = ", ".join(f"{plain(name)} {plain(version)}" for name, version in facts["versions"].items())
    return [
        f"{base}.",
        f"{status['steps']:,} steps in {duration(status['seconds'])} on {facts.get('cores') or '?'} cores, at most "
        f"{status['peak_memory'] / 1e9:.1f} GB of memory. {status['trainable']:,} of {status['parameters']:,} "
        f"parameters learned ({share:.2f} %); its weights are {subject.nbytes / 1e6:.1f} MB.",
        f"| setting | value |\n|---|---|\n{rows}",
        f"Versions: {versions}. All settings are in `recipe.yaml`.",
    ]


def as_text(value: Any) -> str:
    return ", ".join(map(str, value)) or "the usual" if isinstance(value, list | tuple) else str(value)


def loading(subject: Subject, facts: dict[str, Any]) -> list[str]:
    found = []
    if is_adapter(facts["recipe"]):
        found.append(
            f"In the Foundation Model Demo Suite, add `{subject.repo}` on the Models tab, or name "
            f"`{subject.checkpoint}+{subject.repo}` as the model. To measure it again: "
            f"`python -m finetune evaluate {subject.repo}`."
        )
    else:
        found.append(
            f"In the Foundation Model Demo Suite, name `{subject.repo}` as the model, or add it on the Models tab. To "
            f"measure it again: `python -m finetune evaluate {subject.repo}`."
        )
    code = snippet(subject.repo, subject.base, facts, subject.instruction)
    if code:
        found += ["In Python:", f"```python\n{code}```"]
    return found


def plain(text: Any, longest: int = 200) -> str:
    """As it is read, on one line, whatever Markdown or HTML it looks like."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    escaped = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", html.escape(line, quote=False))
    return re.sub(r"^(\d+(?=[.)] )|(?=[#+=-]))(.)", r"\1\\\2", escaped)  # no heading, list or rule
