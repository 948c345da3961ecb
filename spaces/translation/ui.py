"""The Translation tab."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import gradio as gr

from shared import render
from shared.inputs import PRIVATE, Values
from shared.languages import language_name
from shared.ui import Look, Page, slider
from translation.task import Translate, Translation


def build(page: Page) -> None:
    pairs = page.catalog.pairs()
    sources = list(dict.fromkeys(source for source, _ in pairs))

    def targets(source: str) -> list[tuple[str, str]]:
        return [(language_name(target), target) for start, target in pairs if start == source]

    def inputs(start: Values) -> dict[str, Any]:
        text = gr.Textbox(start.get("text"), label="Text", lines=8, max_lines=18, elem_id="translate-text")
        with gr.Row(equal_height=True):
            source = gr.Dropdown(
                [(language_name(code), code) for code in sources], value=pairs[0][0], label="From", filterable=False
            )
            swap = gr.Button("Swap", size="sm", min_width=60, scale=0, elem_id="translate-swap")
            # Open-ended, because an example sets both languages before the menu has followed the first.
            target = gr.Dropdown(
                targets(pairs[0][0]), value=pairs[0][1], label="To", filterable=False, allow_custom_value=True
            )
        swap.click(
            lambda s, t: (t, gr.Dropdown(targets(t), value=s)) if (t, s) in pairs else (s, t),
            [source, target],
            [source, target],
            queue=False,
            **PRIVATE,
        )
        source.change(
            lambda s, t: gr.Dropdown(targets(s), value=t if (s, t) in pairs else targets(s)[0][1]),
            [source, target],
            target,
            queue=False,
            **PRIVATE,
        )
        return {"text": text, "src_lang": source, "tgt_lang": target}

    def settings(start: Values) -> dict[str, Any]:
        return {"num_beams": slider(Translate, "num_beams", "Beams")}

    page.form(
        "translate",
        inputs,
        Look(translation, alignment, text=lambda result: result.text),
        settings=settings,
        action="Translate",
    )


def translation(result: Translation, values: Values) -> str:
    body = f'<div class="prose-text">{escape(result.text)}</div>'
    return render.note(result.warning) + body


def alignment(result: Translation, values: Values) -> str:
    """Sentence by sentence, with how sure the model was of each."""
    rows = [
        (pair.source.text, pair.target, render.percent(math.exp(pair.log_probability))) for pair in result.alignment
    ]
    return "<h4>Sentence by sentence</h4>" + render.table(
        ["source", "translation", "probability per token"], rows, ["probability per token"]
    )
