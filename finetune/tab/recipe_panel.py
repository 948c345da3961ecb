"""The left side of the tab: a recipe, rows of one's own, the settings that matter, Estimate and Start."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from finetune.recipe import read_recipe, shipped_recipes
from finetune.run import background
from finetune.run.turn import queue_folder
from finetune.run_folder import write_atomically
from finetune.tab.drawing import describe
from finetune.tab.form import FIELDS, Form, columns_of, fields_of, guess_columns, name_for
from finetune.tab.runs_panel import RunsPanel
from shared.errors import SuiteError
from shared.events import Done, Event, Partial, Running, Waiting
from shared.page import render
from shared.page.driver import Driver, Presenter, Updates, Visitor, errors_in
from shared.page.inputs import PRIVATE
from shared.page.stop import Stop
from shared.settings import Settings
from shared.transport.admin import require_admin
from shared.transport.edge import Edge

FIRST = "topics"

TEXTS = ("name", "folder", "input", "target", "more")
"""Fields in which nothing is an empty text."""

_numbers = itertools.count()


class RecipePanel:
    """Lays itself out where it is made."""

    def __init__(self, edge: Edge) -> None:
        self.edge, self.settings = edge, edge.runtime.settings
        recipe = read_recipe(FIRST)
        value = fields_of(recipe)
        choices = [(f"{one.name} · {one.title}", one.name) for one in shipped_recipes()]
        self.fields: dict[str, Any] = {
            "recipe": gr.Dropdown(choices, value=FIRST, label="Recipe", filterable=False, elem_id="finetune-recipe")
        }
        self.about = gr.HTML(describe(recipe), padding=False)
        with gr.Accordion("Rows of your own", open=False):
            self._own_rows()
        self._training(value)
        with gr.Accordion("Settings", open=False):
            self.fields["name"] = gr.Textbox(
                FIRST,
                label="Name",
                info="Of the run, and of the adapter in the suite.",
                max_lines=1,
                elem_id="finetune-name",
            )
            self.fields["more"] = gr.Textbox(
                "",
                label="Further settings",
                info="One key=value a line: training.max_steps=20. `python -m finetune show topics` lists them.",
                lines=3,
                elem_id="finetune-more",
            )
        with gr.Row():
            self.start_button = gr.Button("Start", variant="primary", min_width=90, elem_id="finetune-start")
            self.estimate_button = gr.Button("Estimate", min_width=90, elem_id="finetune-estimate")
            self.stop = Stop("finetune-estimate", min_width=70)
        self.said = gr.HTML("", elem_id="finetune-said", padding=False)

    def _own_rows(self) -> None:
        self.fields["upload"] = gr.File(
            label="A table: .csv, .tsv, .jsonl or .parquet",
            file_types=[".csv", ".tsv", ".jsonl", ".parquet"],
            height=120,
            elem_id="finetune-upload",
        )
        self.fields["folder"] = gr.Textbox(
            "",
            label="Or a path on the server",
            info="Of such a table, or of a folder of folders named by label, with recordings in them.",
            max_lines=1,
            elem_id="finetune-folder",
        )
        with gr.Row():
            for name, label in (("input", "Column that goes in"), ("target", "Column that should come out")):
                self.fields[name] = gr.Textbox("", label=label, placeholder="the recipe's", max_lines=1, min_width=140)

    def _training(self, value: dict[str, Any]) -> None:
        whole: dict[str, Any] = {"precision": 0, "minimum": 1, "min_width": 100}
        with gr.Row():
            self.fields["epochs"] = gr.Number(
                value["epochs"], label="Epochs", minimum=0.01, maximum=1000, min_width=100
            )
            self.fields["learning_rate"] = gr.Number(
                value["learning_rate"], label="Learning rate", minimum=0, maximum=1, min_width=100
            )
            self.fields["batch_size"] = gr.Number(value["batch_size"], label="Batch size", **whole)
        with gr.Row():
            self.fields["max_length"] = gr.Number(value["max_length"], label="Tokens of a row", **whole)
            self.fields["rank"] = gr.Number(value["rank"], label="Rank", visible=value["rank"] is not None, **whole)

    # -- events --------------------------------------------------------------------------------

    def wire(self, runs: RunsPanel) -> None:
        fields, quick = self.fields, {"queue": False, **PRIVATE}
        values = list(fields.values())
        changed = [self.about, *(fields[name] for name in ("name", *FIELDS, "rank")), self.said]
        fields["recipe"].input(self.chosen, [fields["recipe"], fields["upload"]], changed, **quick)
        columns = [*(fields[name] for name in ("input", "target", "name")), self.said]
        fields["upload"].change(
            errors_in(self.said, self.uploaded), [fields["upload"], fields["recipe"]], columns, **quick
        )

        def start(request: gr.Request, *raw: Any) -> Updates:
            require_admin(self.settings, request)
            form = self.form(raw)
            run = background.start(form.as_recipe(self.settings), self.settings)
            terminal = escape(form.command(self.settings))
            said = f'<div class="snippet"><h4>The same from a terminal</h4><pre>{terminal}</pre></div>'
            return {**runs.view_of(run.folder.name), self.said: said}

        self.start_button.click(errors_in(self.said, start), values, [*runs.outputs, self.said], **quick)
        estimate = functools.partial(EstimatePresenter, self)
        Driver(self.edge, estimate, values, [self.said], self.stop).on(self.estimate_button.click)
        self.stop.wire()

    def form(self, raw: Sequence[Any]) -> Form:
        held: dict[str, Any] = dict(zip(self.fields, raw, strict=True))
        held |= {name: held[name] or "" for name in TEXTS}
        return Form(**held)

    def chosen(self, name: str, upload: str | None) -> list[Any]:
        """The recipe's own settings in the fields; rows that were uploaded stay, with a name of their own."""
        recipe = read_recipe(name)
        called = name_for(name, Path(upload)) if upload else recipe.name
        value = fields_of(recipe)
        rank = gr.Number(value["rank"], visible=value["rank"] is not None)
        return [describe(recipe), called, *(value[field] for field in FIELDS), rank, ""]

    def uploaded(self, request: gr.Request, path: str | None, recipe: str) -> Updates:
        """Columns of the table that was uploaded, and a name for a run on it."""
        goes_in, comes_out, name = (self.fields[field] for field in ("input", "target", "name"))
        if not path:
            return {goes_in: "", comes_out: "", name: recipe, self.said: ""}
        require_admin(self.settings, request)
        columns = columns_of(Path(path))
        guessed = guess_columns(columns, read_recipe(recipe))
        said = f'<p class="limits">Its columns: {escape(", ".join(columns)[:300])}</p>'
        return {goes_in: guessed[0], comes_out: guessed[1], name: name_for(recipe, Path(path)), self.said: said}


class EstimatePresenter(Presenter):
    """One estimate, in the line under the buttons."""

    def __init__(self, panel: RecipePanel, *raw: Any) -> None:
        self.panel, self.raw = panel, raw

    def requests(self, visitor: Visitor) -> Iterator[AsyncGenerator[Event, None]]:
        settings = self.panel.settings
        require_admin(settings, visitor.request)
        yield dry_run(self.panel.form(self.raw).as_recipe(settings).to_yaml(), settings)

    def waiting(self, event: Waiting) -> Updates:
        return self.message(render.waiting(event))

    async def result(self, event: Partial[str] | Done[str]) -> Updates:
        return self.message(event.result)

    def message(self, html: str) -> Updates:
        return {self.panel.said: html}

    def stopped(self) -> Updates:
        return self.message('<div class="run-line">Stopped.</div>')


async def dry_run(recipe: str, settings: Settings) -> AsyncGenerator[Event, None]:
    """The estimate as HTML, made in a process that ends with this. Raises `SuiteError` with that process's error."""
    path = queue_folder(settings) / f"estimate-{os.getpid()}-{next(_numbers)}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, recipe)
    process = await asyncio.create_subprocess_exec(
        *background.command("train", path, "--dry-run", "--background"),
        cwd=background.ROOT,
        env=background.environment(settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    ended = asyncio.create_task(process.communicate())
    try:
        while not (await asyncio.wait([ended], timeout=0.5))[0]:
            yield Running("reading rows and timing a few steps")
        out, problem = (stream.decode("utf-8", errors="replace") for stream in ended.result())
        if process.returncode:
            lines = problem.strip().splitlines() or ["it ended without a word"]
            said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            raise SuiteError((said or lines)[-1].removesuffix("."))
        yield Partial("".join(f'<p class="estimate">{escape(line)}</p>' for line in out.splitlines()))
    finally:
        if process.returncode is None:
            process.kill()
            await ended
        path.unlink(missing_ok=True)
