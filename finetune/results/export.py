"""The forms that a trained checkpoint can take, each written and measured: merged, in eight bits, in four.

<out>/merged   the adapter added into its base's weights; transformers alone reads it
<out>/int8     its linear modules in eight bits (LLM.int8(), Dettmers et al. 2022)
<out>/nf4      in four: NF4 with quantized constants (Dettmers et al. 2023)
<out>/export.json, export.md   what each takes on disk, how fast it is, what it loses

Both quantized forms are bitsandbytes' own: `from_pretrained` reads them back, on a CPU too. Heads, embeddings and norms
stay as they are, in the recipe's dtype. They are for memory and disk, not for speed on a CPU: MiniLM sorted 21 articles
a second merged, 9 in NF4 and 5 in int8 (two busy cores). int8 goes without its second pass for outliers
(`llm_int8_threshold=0`), which made it four times slower again. torch's own dynamic int8 is faster than float32, but is
deprecated, warns at every use, and no `from_pretrained` reads what it saves.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune.base import shared_parts
from finetune.data.split import Item
from finetune.methods.partial import HEADS
from finetune.methods.qlora import BLOCK
from finetune.recipe import Recipe
from finetune.results import scores
from finetune.results.evaluation import measure, tuned_system
from finetune.results.loading import Trained, base_of, facts_of, load_trained, merge, plain
from finetune.rows import read_parts
from finetune.run_folder import PACKAGES, write_atomically, write_json
from shared.atomic import atomic_file, atomic_folder
from shared.errors import SuiteError
from shared.serving.runtime import Runtime
from shared.settings import Settings

EXPORT, TABLE = "export.json", "export.md"
WARM_UP = 4
"""Rows that are answered before time is taken."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Form:
    """One row of the table. What was not measured is None."""

    name: str
    bytes: int = 0
    """Of its weights on disk."""
    metric: float | None = None
    """The headline metric on the held-out rows."""
    lost: float | None = None
    """How much worse than the merged form that is; below 0 where it is better."""
    per_second: float | None = None
    """Rows, or of texts that are generated: tokens."""
    failed: str = ""


def export_all(checkpoint: str | Path, out: Path, settings: Settings, say: Say, *, rows: int = 0) -> dict[str, Any]:
    """Writes every form that can be written; one that cannot is a row that says why. Returns what `export.json` holds.

    `rows` are measured at most; 0 takes the recipe's number. Raises `SuiteError` where there is nothing to export.
    """
    with shared_parts(settings) as runtime:
        trained = load_trained(checkpoint, None, runtime)
        recipe = trained.recipe
        items, unmeasured = held_out(recipe, runtime, rows)
        if unmeasured:
            say(f"written, but not measured: {unmeasured}")
        out.mkdir(parents=True, exist_ok=True)
        adapter = recipe.saves == "adapter"
        base_bytes = weight_bytes(base_of(facts_of(trained.folder), runtime).folder) if adapter else 0
        forms = []
        headline = ""
        for name, made in _forms(trained, out):
            say(f"exporting: {name}")
            try:
                form = made()
                metrics, speed = measure_form(form, items)
            except (SuiteError, RuntimeError, ValueError, NotImplementedError, ImportError, OSError) as error:
                forms.append(Form(name, failed=" ".join(str(error).split())[:300] or type(error).__name__))
                continue
            headline = headline or headline_of(metrics, recipe)
            forms.append(Form(name, weight_bytes(form.folder), metrics.get(headline), None, speed))
    forms = with_losses(forms, headline)
    content = {
        "recipe": recipe.name,
        "base": recipe.base,
        "base_bytes": base_bytes,
        "rows": len(items),
        "metric": headline,
        "unit": "tokens" if recipe.generates else "rows",
        "unmeasured": unmeasured,
        "forms": [asdict(form) for form in forms],
        "versions": {name: version(name) for name in PACKAGES},
        "cores": os.cpu_count(),
    }
    with atomic_file(out / EXPORT) as part:
        write_json(part, content)
    write_atomically(out / TABLE, as_table(content) + "\n")
    say(as_table(content))
    return content


def _forms(trained: Trained, out: Path) -> Iterator[tuple[str, Callable[[], Trained]]]:
    """Each form's name, and what writes it and reads it back from where it was written."""
    recipe = trained.recipe
    yield ("adapter on its base" if recipe.saves == "adapter" else "as trained"), lambda: trained
    architecture = type(plain(trained.model))

    def merged() -> Trained:
        shutil.rmtree(out / "merged", ignore_errors=True)  # an older one must not pass for this one if this one fails
        with atomic_folder(out / "merged") as building:
            model = merge(trained.model)
            model.save_pretrained(building, safe_serialization=True)
            trained.processor.save_pretrained(building)
        return read_back(trained, architecture, out / "merged")

    def quantized(name: str) -> Trained:
        shutil.rmtree(out / name, ignore_errors=True)
        with atomic_folder(out / name) as building:
            if not (out / "merged").is_dir():
                raise SuiteError("it is made from the merged form, which could not be written")
            bare = without_weights(architecture, out / "merged")
            if name == "nf4" and (odd := unsupported_widths(bare)):
                raise SuiteError(
                    f"this model has linear modules of {odd[0]} inputs, and NF4 on a CPU needs a multiple of {BLOCK}"
                )
            model = architecture.from_pretrained(
                out / "merged",
                quantization_config=quantization(name, recipe, unquantized_modules(bare)),
                dtype=_dtype(recipe),
                local_files_only=True,
            )
            model.save_pretrained(building, safe_serialization=True)
            trained.processor.save_pretrained(building)
        return read_back(trained, architecture, out / name)

    yield "merged", merged
    yield "int8", lambda: quantized("int8")
    yield "nf4", lambda: quantized("nf4")


# -- writing ---------------------------------------------------------------------------------------


def quantization(name: str, recipe: Recipe, whole: Sequence[str]) -> Any:
    from transformers import BitsAndBytesConfig

    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=list(whole))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_dtype(recipe),
        llm_int8_skip_modules=list(whole),
    )


def without_weights(architecture: Any, folder: Path) -> Any:
    """The model's modules alone."""
    import torch
    from transformers import AutoConfig

    with torch.device("meta"):
        return architecture(AutoConfig.from_pretrained(folder, local_files_only=True))


def unquantized_modules(model: Any) -> list[str]:
    """Names of modules that are not quantized: a task's head, and what turns states into tokens.

    They are small, and every answer goes through them.
    """
    output = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in HEADS or (output is not None and module is output)
    ]


def unsupported_widths(model: Any) -> list[int]:
    """Widths of the modules that NF4 cannot compute here, in ascending order; none where there is a GPU."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if torch.cuda.is_available():
        return []
    found: set[int] = set()
    whole = tuple(f"{name}." for name in unquantized_modules(model))
    for name, module in model.named_modules():
        if f"{name}.".startswith(whole):
            continue
        if isinstance(module, torch.nn.Linear):
            found.add(module.in_features)
        elif isinstance(module, Conv1D):
            found.add(module.weight.shape[0])
    return sorted(width for width in found if width % BLOCK)


def _dtype(recipe: Recipe) -> Any:
    import torch

    return torch.bfloat16 if recipe.training.dtype == "bfloat16" else torch.float32


# -- measuring -------------------------------------------------------------------------------------


def held_out(recipe: Recipe, runtime: Runtime, rows: int) -> tuple[list[Item], str]:
    """Rows that the training did not see, or none and why."""
    try:
        parts = read_parts(recipe, runtime, lambda *_: None)
    except SuiteError as error:
        return [], str(error)
    return list(parts.test[: rows or recipe.evaluation.rows]), ""


def read_back(trained: Trained, architecture: Any, folder: Path) -> Trained:
    """What was written, as plain transformers reads it."""
    model = architecture.from_pretrained(folder, local_files_only=True).eval()
    processor = trained.task.load_processor(folder, trained.recipe)
    return replace(trained, folder=folder, model=model, processor=processor)


def measure_form(form: Trained, items: Sequence[Item]) -> tuple[dict[str, float], float | None]:
    """Metrics on the items, and rows (tokens) a second. Raises `SuiteError`."""
    if not items:
        return {}, None
    system = tuned_system(form)
    system.answer(items[:WARM_UP])
    taken: list[float] = []

    def timed(items: Sequence[Item]) -> list[str]:
        began = time.perf_counter()
        answers = answer(items)
        taken.append(time.perf_counter() - began)
        return answers

    answer, system.answer = system.answer, timed
    found = measure(system, form.recipe, items)
    if found.failed:
        raise SuiteError(found.failed)
    count = len(items)
    if form.recipe.generates:
        count = sum(len(form.processor(text, add_special_tokens=False)["input_ids"]) for text in found.answers)
    return found.metrics, round(count / max(taken[0], 1e-9), 2)


def headline_of(metrics: dict[str, float], recipe: Recipe) -> str:
    """As `finetune.results.evaluation` chooses it."""
    if not metrics:
        return ""
    return "perplexity" if metrics.get("perplexity") else scores.headline(recipe.task)


def with_losses(forms: Sequence[Form], headline: str) -> list[Form]:
    """With what each lost against the merged form; of perplexity less is better."""
    merged = next((form.metric for form in forms if form.name == "merged"), None)
    sign = -1 if headline == "perplexity" else 1
    return [
        form
        if merged is None or form.metric is None
        else replace(form, lost=round(sign * (merged - form.metric), 4) + 0.0)
        for form in forms
    ]


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def as_table(content: dict[str, Any]) -> str:
    """Markdown of what `export.json` holds."""
    columns = ["form", "MB", f"{content['unit']} a second", content["metric"] or "metric", "worse than merged by"]
    lines = [f"| {' | '.join(columns)} |", "|---|---:|---:|---:|---:|"]
    for form in content["forms"]:
        if form["failed"]:
            lines.append(f"| {form['name']} | | | | not possible: {form['failed'].replace('|', '/')} |")
            continue
        size = f"{form['bytes'] / 1e6:.1f}"
        if content["base_bytes"] and form["name"] == "adapter on its base":
            size += f" + {content['base_bytes'] / 1e6:.1f}"
        figures = [
            "" if value is None else f"{value:.{digits}f}"
            for value, digits in ((form["per_second"], 1), (form["metric"], 3), (form["lost"], 3))
        ]
        lines.append(f"| {form['name']} | {size} | {' | '.join(figures)} |")
    said = f"{content['rows']} held-out rows." if content["rows"] else f"Not measured: {content['unmeasured']}"
    return "\n".join([*lines, "", said])
