"""The Translation tab."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import gradio as gr

from shared.checkpoints.catalog import Pair
from shared.media.languages import language_name
from shared.page import render
from shared.page.form import Look, Page, slider
from shared.page.inputs import PRIVATE, Values
from translation.task import DETECT, Translate, Translation


def build(page: Page) -> None:
    catalog = page.catalog

    def pairs() -> list[Pair]:
        """What can be translated now; where nothing can, what could be, and a request says what is missing."""
        return catalog.pairs() or catalog.pairs(usable=False)

    def sources() -> list[tuple[str, str]]:
        codes = dict.fromkeys(source for source, _ in pairs())
        return [("Detect the language", DETECT), *sorted((language_name(code), code) for code in codes)]

    def targets(source: str) -> list[tuple[str, str]]:
        codes = dict.fromkeys(t for s, t in pairs() if source in (s, DETECT))
        return sorted((language_name(code), code) for code in codes)

    def inputs(start: Values) -> dict[str, Any]:
        first_source, first_target = (start["src_lang"], start["tgt_lang"]) if start else pairs()[0]
        text = gr.Textbox(start.get("text"), label="Text", lines=8, max_lines=18, elem_id="translate-text")
        with gr.Row(equal_height=True):
            # Both are open-ended: an example sets both languages before the second menu has followed the first, and
            # the languages of the Hub's checkpoints come when the Hub has answered.
            source = gr.Dropdown(sources(), value=first_source, label="From", allow_custom_value=True)
            swap = gr.Button("Swap", size="sm", min_width=60, scale=0, elem_id="translate-swap")
            target = gr.Dropdown(targets(first_source), value=first_target, label="To", allow_custom_value=True)

        def swapped(s: str, t: str) -> tuple[Any, Any]:
            return (t, gr.Dropdown(choices=targets(t), value=s)) if (t, s) in pairs() else (s, t)

        def followed(s: str, t: str) -> Any:
            choices = targets(s)
            kept = t in [code for _, code in choices] or not choices
            return gr.Dropdown(choices=choices, value=t if kept else choices[0][1])

        swap.click(swapped, [source, target], [source, target], queue=False, **PRIVATE)
        source.change(followed, [source, target], target, queue=False, **PRIVATE)
        page.refresh(source, lambda: gr.Dropdown(choices=sources()))
        page.refresh(target, lambda: gr.Dropdown(choices=targets(first_source)))
        return {"text": text, "src_lang": source, "tgt_lang": target}

    def settings(start: Values) -> dict[str, Any]:
        return {
            "model": page.models("translate", unchosen="the first that translates these languages"),
            "num_beams": slider(Translate, "num_beams", "Beams"),
        }

    page.form(
        "translate",
        inputs,
        Look(translation, alignment, lambda result, _: render.unless_empty(result.text), lambda result: result.text),
        settings=settings,
        able=lambda example: catalog.able("translation", (example["src_lang"], example["tgt_lang"])),
        action="Translate",
    )


def translation(result: Translation, values: Values) -> str:
    return f'<div class="prose-text">{escape(result.text)}</div>'


def alignment(result: Translation, values: Values) -> str:
    """Sentence by sentence, with how sure the model was of each."""
    source, target = map(language_name, result.pair)
    rows = [
        (pair.source.text, pair.target, render.percent(math.exp(pair.log_probability))) for pair in result.alignment
    ]
    return "<h4>Sentence by sentence</h4>" + render.table(
        [source, target, "probability per token"], rows, ["probability per token"]
    )
