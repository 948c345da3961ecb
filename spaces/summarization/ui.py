"""The Summarization tab."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from shared.page import render
from shared.page.form import Look, Page, slider, zero_one_few
from shared.page.inputs import Values
from summarization.task import Summarize, Summary, rouge


def build(page: Page) -> None:
    def inputs(start: Values) -> dict[str, Any]:
        return {
            "text": gr.Textbox(start.get("text"), label="Text", lines=8, max_lines=12, elem_id="summarize-text"),
            "style": gr.Radio(
                [("Article", "article"), ("Dialogue", "dialogue")], value="article", label="Kind of text"
            ),
            "max_new_tokens": slider(Summarize, "max_new_tokens", "Length of the summary, in tokens"),
            "model": page.models("summarize"),
        }

    def settings(start: Values) -> dict[str, Any]:
        return {
            "num_beams": slider(Summarize, "num_beams", "Beams"),
            "examples": gr.Dataframe(
                start.get("examples"),
                headers=["text", "summary"],
                datatype="str",
                type="array",
                column_count=2,
                column_widths=["65%", "35%"],
                label="Examples for the model to follow: with some, zero, one and few are compared",
                wrap=True,
                max_height=200,
                interactive=True,
            ),
            "reference": gr.Textbox(
                "", label="Reference summary", info="Paste one to see ROUGE, the words they share.", lines=3
            ),
        }

    page.form(
        "summarize",
        inputs,
        Look(summary, explain, facts, lambda result: result.text),
        settings=settings,
        extras=("reference",),
        variants=zero_one_few,
        action="Summarize",
    )


def summary(result: Summary, values: Values) -> str:
    notes = ""
    if result.parts > 1:
        notes = render.note(
            f"The text is longer than the model reads at once: it was read in {result.parts} parts, "
            "and their summaries were summarised together."
        )
    return f'{notes}<div class="prose-text">{escape(result.text)}'


def facts(result: Summary, values: Values) -> str:
    """Length, and the overlap with a reference summary where one was pasted."""
    words = len(result.text.split())
    said = f"</div>{render.unless_empty(result.text)}"
    said += f'<p class="limits">{words} words, {render.percent(result.compression)} of the source</p>'
    reference = (values.get("reference") or "").strip()
    if not reference:
        return said
    names = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
    overlap = rouge(result.text, reference).items()
    return f"{said}<h3>Against the reference (F1)</h3>" + "".join(render.bar(names[n], v) for n, v in overlap)


def explain(result: Summary, values: Values) -> str:
    parts = [f"<h4>Method</h4>{escape(result.method)}"]
    if result.scores:
        parts.append("<h4>Chosen sentences in the source</h4>" + highlighted(result))
        ranked = sorted(result.scores, key=lambda pair: -pair[1])[:8]
        parts.append(
            "<h4>Most central sentences (similarity to the whole)</h4>"
            + render.table(["sentence", "similarity"], [(s.text, f"{v:.2f}") for s, v in ranked], ["similarity"])
        )
    if result.prompt:
        parts.append(f"<h4>The exact prompt{' of the last step' if result.parts > 1 else ''}</h4>")
        parts.append(f"<pre>{escape(result.prompt)}</pre>")
    return "".join(parts)


def highlighted(result: Summary) -> str:
    """The source with the chosen sentences marked."""
    pieces, place = [], 0
    for span in result.chosen:
        pieces += [escape(result.source[place : span.start]), f"<mark>{escape(span.text)}</mark>"]
        place = span.end
    return f'<div class="source">{"".join(pieces)}{escape(result.source[place:])}</div>'
