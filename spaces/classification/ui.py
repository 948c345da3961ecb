"""The Classification tab: zero-shot, few-shot and sentiment."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from classification.requests import FewShot, ZeroShot
from classification.task import Classification
from shared.page import render
from shared.page.form import Look, Page, zero_one_few
from shared.page.inputs import Values


def build(page: Page) -> None:
    with gr.Tabs(elem_id="classification-forms"):
        with gr.Tab("Zero-shot", id="zero_shot"):
            page.form(
                "zero_shot",
                zero_shot_inputs,
                Look(scores, explain, text=as_lines),
                settings=template(page),
                action="Classify",
            )
        with gr.Tab("Few-shot", id="few_shot"):
            page.form(
                "few_shot",
                few_shot_inputs,
                Look(scores, explain, text=as_lines),
                settings=instruction(page),
                variants=lambda values: zero_one_few(values, always=True),
                action="Compare zero, one and few",
            )
        with gr.Tab("Sentiment", id="sentiment"):
            page.form("sentiment", sentiment_inputs(page), Look(scores, explain, text=as_lines), action="Judge")


def zero_shot_inputs(start: Values) -> dict[str, Any]:
    return {
        "text": gr.Textbox(start.get("text"), label="Text", lines=5, max_lines=14, elem_id="zero_shot-text"),
        "candidate_labels": gr.Textbox(
            start.get("candidate_labels"),
            label="Labels, separated by commas",
            lines=2,
            elem_id="zero_shot-labels",
        ),
        "multi_label": gr.Checkbox(
            start.get("multi_label", False), label=ZeroShot.model_fields["multi_label"].description
        ),
    }


def template(page: Page) -> Any:
    def settings(start: Values) -> dict[str, Any]:
        field = ZeroShot.model_fields["hypothesis_template"]
        return {
            "hypothesis_template": gr.Textbox(
                field.default, label="Hypothesis template", info=field.description, max_lines=1
            ),
            "model": page.models("zero_shot"),
        }

    return settings


def few_shot_inputs(start: Values) -> dict[str, Any]:
    return {
        "text": gr.Textbox(start.get("text"), label="Text", lines=2, max_lines=14, elem_id="few_shot-text"),
        "candidate_labels": gr.Textbox(start.get("candidate_labels"), label="Labels, separated by commas", lines=1),
        "examples": gr.Dataframe(
            start.get("examples"),
            headers=["text", "label"],
            datatype="str",
            type="array",
            column_count=2,
            column_widths=["75%", "25%"],
            label="Examples: edit, add or remove rows",
            wrap=True,
            max_height=165,
            interactive=True,
        ),
    }


def instruction(page: Page) -> Any:
    def settings(start: Values) -> dict[str, Any]:
        field = FewShot.model_fields["instruction"]
        return {
            "instruction": gr.Textbox(
                start.get("instruction", field.default), label="Instruction", info=field.description, max_lines=2
            ),
            "model": page.models("few_shot"),
        }

    return settings


def sentiment_inputs(page: Page) -> Any:
    def inputs(start: Values) -> dict[str, Any]:
        return {
            "text": gr.Textbox(start.get("text"), label="Text", lines=5, max_lines=14, elem_id="sentiment-text"),
            "model": page.models("sentiment"),
        }

    return inputs


def scores(result: Classification, values: Values) -> str:
    return f'<p class="answer">{escape(result.label)}</p>{render.bars(result.confidences)}'


def as_lines(result: Classification) -> str:
    return "\n".join(f"{row['label']}\t{row['confidence']}" for row in result.confidences)


def explain(result: Classification, values: Values) -> str:
    parts = [f"<h4>Method</h4>{escape(result.method)}"]
    if result.raw != result.confidences:
        parts.append(
            "<h4>Before calibration</h4>"
            "Calibration divides by what the same prompt says of a text without content (N/A, [MASK], nothing)."
            + render.bars(result.raw)
        )
    if result.prompt:
        share = f" ({render.percent(result.window_share)} of the context window)" if result.window_share else ""
        parts.append(f"<h4>The exact prompt{share}</h4><pre>{escape(result.prompt)}</pre>")
    elif values.get("hypothesis_template"):
        how = (
            "the model says how surely the text entails it"
            if result.method == "entailment"
            else "by cosine similarity; a softmax makes probabilities of it"
        )
        parts.append(
            "<h4>Compared with the text</h4>each label in the template "
            f"<code>{escape(values['hypothesis_template'])}</code>: {how}."
        )
    return "".join(parts)
