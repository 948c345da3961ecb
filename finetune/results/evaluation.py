"""Before and after: the tuned model, its base and classic methods on the same held-out rows.

A tuned model counts as better only where the paired bootstrap says so: the whole 95 % interval of its lead over the
best the base can do, examples included, is above zero.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finetune.data.split import Item, Parts
from finetune.recipe import Recipe
from finetune.results.comparisons import System, systems
from finetune.results.loading import Trained
from finetune.results.scores import Interval, confusion, difference, headline, interval, per_row, perplexity, scores
from finetune.run_folder import EVALUATION, runs_folder, write_atomically, write_json
from shared.errors import SuiteError
from shared.serving.runtime import Runtime

TABLE = "evaluation.md"


@dataclass
class Measured:
    """One system on the held-out rows. Our metrics are 0 to 1, but for perplexity."""

    name: str
    kind: str
    metrics: dict[str, float] = field(default_factory=dict)
    interval: Interval = (0.0, 0.0)
    """95 %, of the headline metric."""
    seconds: float = 0.0
    confusion: dict[str, Any] | None = None
    failed: str = ""
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Of each row what the comparison goes by: right or not, ROUGE-L, chrF, or minus the loss."""
    answers: list[str] = field(default_factory=list)


@dataclass
class Evaluation:
    """The table, and what it says."""

    recipe: Recipe
    headline: str
    items: list[Item]
    systems: list[Measured]
    lead: Interval | None = None
    """95 % interval of the tuned model's lead over the best base, in the headline metric (of perplexity: the loss)."""

    @property
    def tuned(self) -> Measured:
        return self.systems[-1]

    @property
    def best_base(self) -> Measured | None:
        able = [s for s in self.systems if s.kind == "base" and not s.failed]
        # A base without a head cannot answer at all; then a baseline is what must be beaten.
        able = able or [s for s in self.systems if s.kind == "baseline" and len(s.rows) == len(self.tuned.rows)]
        return max(able, key=lambda s: float(s.rows.mean()), default=None)

    @property
    def beats_base(self) -> bool:
        return self.lead is not None and self.lead[0] > 0

    def verdict(self) -> str:
        base = self.best_base
        if base is None or self.lead is None:
            return "There is no base to compare with: it cannot do this without training."
        low, high = self.lead
        than = f"the best of its base ({base.name})" if base.kind == "base" else base.name
        what = "a lower loss per token" if self.headline == "perplexity" else f"more {self.headline}"
        if self.beats_base:
            return f"Better than {than}: {low:.3f} to {high:.3f} {what} (95 %)."
        return (
            f"Not shown to be better than {than}: {low:.3f} to {high:.3f} {what} (95 %). Publishing it needs --force."
        )


def evaluate(
    recipe: Recipe,
    parts: Parts,
    trained: Trained,
    runtime: Runtime,
    base: Any,
    say: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Measures every system, the tuned one last."""
    items = parts.test[: recipe.evaluation.rows]
    found = measure_others(recipe, parts, items, runtime, base, say)
    say("measuring: tuned")
    found.append(measure(tuned_system(trained), recipe, items))
    name = "perplexity" if found[-1].metrics.get("perplexity") else headline(recipe.task)
    done = Evaluation(recipe, name, list(items), found)
    if (best := done.best_base) is not None:
        done.lead = difference(found[-1].rows, best.rows)
    return done


def measure_others(
    recipe: Recipe, parts: Parts, items: Sequence[Item], runtime: Runtime, base: Any, say: Callable[[str], None]
) -> list[Measured]:
    """Every system but the tuned one. Recipes over the same base and rows share what was measured of them."""
    decisive = (
        recipe.model_dump_json(include={"base", "task", "data", "instruction", "evaluation"}),
        recipe.training.max_length,
        [(item.input, item.target) for item in [*parts.train, *items]],
    )
    key = hashlib.sha256(repr(decisive).encode("utf-8", errors="replace")).hexdigest()[:16]
    kept = runs_folder(runtime.settings) / f"comparison-{key}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = json.loads(kept.read_text(encoding="utf-8"))
        found = [
            Measured(**{**one, "rows": np.array(one["rows"]), "interval": tuple(one["interval"])}) for one in known
        ]
        say(f"base and baselines were measured before ({kept.name})")
        return found
    found = []
    for system in systems(recipe, base, parts, runtime):
        say(f"measuring: {system.name}")
        found.append(measure(system, recipe, items))
    if not any(system.failed for system in found):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps([{**asdict(one), "rows": one.rows.tolist()} for one in found]))
    return found


def measure(system: System, recipe: Recipe, items: Sequence[Item]) -> Measured:
    """A system that cannot do it is a row that says why."""
    references = [item.target for item in items]
    began = time.perf_counter()
    try:
        answers = system.answer(items)
    except SuiteError as error:
        return Measured(system.name, system.kind, failed=str(error))
    seconds = round(time.perf_counter() - began, 1)
    rows = per_row(answers, references, recipe.task)
    found = Measured(
        system.name,
        system.kind,
        scores(answers, references, generates=recipe.generates, more=recipe.evaluation.metrics),
        interval(rows),
        seconds,
        None if recipe.generates else confusion(answers, references),
        rows=rows,
        answers=answers,
    )
    if system.loss is not None:
        found.rows = -np.array(system.loss(items))
        found.metrics["perplexity"] = perplexity(float(-found.rows.mean()))
        low, high = interval(found.rows)
        found.interval = perplexity(-high), perplexity(-low)
    return found


def tuned_system(trained: Trained) -> System:
    """The tuned model as transformers and peft run it."""
    recipe, processor = trained.recipe, trained.processor
    model = trained.model.eval()

    def answer(items: Sequence[Item]) -> list[str]:
        return trained.task.answers(model, processor, items, recipe, trained.labels, lambda *_: None)

    def loss(items: Sequence[Item]) -> list[float]:
        from finetune.tasks import conversation

        prompts = [
            conversation.prompt_ids(conversation.messages(item.input, recipe.instruction), processor) for item in items
        ]
        return conversation.reply_losses(model, processor, items, prompts)

    return System("tuned", "tuned", answer, loss if recipe.task == "conversational" else None)


# -- what is written ---------------------------------------------------------------------------------


def as_json(done: Evaluation) -> dict[str, Any]:
    keep = ("name", "kind", "metrics", "interval", "seconds", "confusion", "failed")
    return {
        "recipe": done.recipe.name,
        "rows": len(done.items),
        "metric": done.headline,
        "base": base.metrics.get(done.headline) if (base := done.best_base) else None,
        "tuned": done.tuned.metrics.get(done.headline),
        "lead": done.lead,
        "beats_base": done.beats_base,
        "verdict": done.verdict(),
        "systems": [{k: v for k, v in asdict(system).items() if k in keep} for system in done.systems],
        "samples": [
            {"input": item.input[:300], "right": item.target[:300], "tuned": done.tuned.answers[i][:300]}
            | ({"base": base.answers[i][:300]} if (base := done.best_base) else {})
            for i, item in enumerate(done.items[:8])
        ],
    }


def as_table(content: dict[str, Any]) -> str:
    """Markdown of what `as_json` wrote."""
    names = list(dict.fromkeys(name for system in content["systems"] for name in system["metrics"]))
    names.sort(key=lambda name: name != content["metric"])
    lines = [f"| | {' | '.join(names)} | 95 % of {content['metric']} | seconds |", "|---" * (len(names) + 3) + "|"]
    for system in content["systems"]:
        if system["failed"]:
            lines.append(f"| {system['name']} | {' | ' * (len(names) - 1)} | not possible: {system['failed']} | |")
            continue
        figures = [f"{system['metrics'][name]:.3f}" if name in system["metrics"] else "" for name in names]
        low, high = system["interval"]
        sure = f"{low:.3f}–{high:.3f}" if content["metric"] in system["metrics"] else ""
        name = f"**{system['name']}**" if system["kind"] == "tuned" else system["name"]
        lines.append(f"| {name} | {' | '.join(figures)} | {sure} | {system['seconds']:.0f} |")
    return "\n".join([*lines, "", f"{content['rows']} held-out rows. {content['verdict']}"])


def confusion_table(found: dict[str, Any]) -> str:
    """Markdown: a row for each true label."""
    columns = found.get("columns", found["labels"])
    lines = ["| true \\ answered | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {label} | " + " | ".join(map(str, counts)) + " |"
        for label, counts in zip(found["labels"], found["counts"], strict=True)
    ]
    return "\n".join(lines)


def write(done: Evaluation, folder: Path) -> dict[str, Any]:
    content = as_json(done)
    write_json(folder / EVALUATION, content)
    text = as_table(content)
    if done.tuned.confusion:
        text += "\n\n" + confusion_table(done.tuned.confusion)
    (folder / TABLE).write_text(text + "\n", encoding="utf-8")
    return content
