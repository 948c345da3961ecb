"""The Text generation tab: completion, chat and the next token."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from generation.chat_ui import build_chat
from generation.controls import sampling_controls
from generation.drawing import all_coloured, gauge, legend
from generation.task import Completion, Distribution, Generate, NextToken
from shared.page import render
from shared.page.form import Look, Page, slider
from shared.page.inputs import Values


def build(page: Page) -> None:
    with gr.Tabs(elem_id="generation-forms"):
        with gr.Tab("Completion", id="generate"):
            page.form(
                "generate",
                prompt_inputs,
                Look(completion, explain, text=lambda result: result.text),
                settings=lambda start: sampling_controls(page, "generate"),
                action="Generate",
            )
        with gr.Tab("Chat", id="chat"):
            build_chat(page)
        with gr.Tab("Next token", id="next_token"):
            page.form(
                "next_token", next_token_inputs(page), Look(chances, explain_chances), live=True, action="Look again"
            )


def prompt_inputs(start: Values) -> dict[str, Any]:
    return {
        "prompt": gr.Textbox(start.get("prompt"), label="Prompt", lines=4, max_lines=14, elem_id="generate-prompt"),
        "max_new_tokens": slider(Generate, "max_new_tokens", "New tokens", value=start.get("max_new_tokens", 64)),
        "do_sample": gr.Checkbox(
            start.get("do_sample", False), label="Sampling", info=Generate.model_fields["do_sample"].description
        ),
    }


def next_token_inputs(page: Page) -> Any:
    def inputs(start: Values) -> dict[str, Any]:
        return {
            "prompt": gr.Textbox(
                start.get("prompt"), label="Prompt", lines=2, max_lines=10, elem_id="next_token-prompt"
            ),
            "temperature": slider(NextToken, "temperature", "Temperature", step=0.05),
            "top_k": slider(NextToken, "top_k", "Top-k", maximum=50),
            "top_p": slider(NextToken, "top_p", "Top-p", minimum=0.05, step=0.05),
            "model": page.models("next_token"),
        }

    return inputs


# -- how results look ------------------------------------------------------------------------------


def completion(result: Completion, values: Values) -> str:
    """Prompt and new text, each token coloured by its probability. Open-ended, so that it can grow."""
    given = f'<div class="completion"><span class="given">{escape(values["prompt"])}</span>'
    return f"{legend()}{given}{all_coloured(result)}"


def explain(result: Completion, values: Values) -> str:
    unsure = sorted(result.tokens, key=lambda token: token.probability)[:8]
    rows = [(repr(token.text), render.percent(token.probability)) for token in unsure]
    return f"<h4>Context window</h4>{gauge(result)}<h4>Tokens the model was least sure of</h4>" + render.table(
        ["token", "probability"], rows, ["probability"]
    )


def chances(result: Distribution, values: Values) -> str:
    """The likeliest tokens before (pale) and after the settings; a click appends one to the prompt."""
    rows = []
    top = max(0.01, *(max(t.before, t.after) for t in result.tokens[:12]))
    for token in result.tokens[:12]:
        name = escape(token.text.replace("\n", "⏎")) or "(nothing)"
        rows.append(
            f'<button class="chance" data-act="append" data-text="{escape(token.text)}" '
            f'title="Append this token to the prompt"><span class="bar pair"><code class="name">{name}</code><span>'
            f"{_track(token.before, top, 'opacity:.45;')}{_track(token.after, top, '')}</span>"
            f'<span class="value">{render.percent(token.before)}<br>{render.percent(token.after)}</span></span>'
            "</button>"
        )
    said = (
        f"{result.kept:,} tokens can be drawn; the model itself gives them {render.percent(result.kept_mass)}. "
        "Greedy decoding takes the first. Click a token to append it."
    )
    return (
        '<div class="legend">upper, pale bar: the model · lower bar: after temperature, top-k and top-p</div>'
        f'{"".join(rows)}<p class="limits">{said}</p>'
    )


def _track(share: float, top: float, style: str) -> str:
    return (
        f'<span class="track" style="display:block"><i style="width:{100 * share / top:.2f}%;{style}'
        f'background:{render.colour(share)}"></i></span>'
    )


def explain_chances(result: Distribution, values: Values) -> str:
    return (
        "<h4>In this order</h4>Temperature divides the logits before the softmax: below 1 the distribution gets "
        "sharper, above 1 flatter. Top-k then keeps the k likeliest tokens. Top-p keeps the smallest set whose "
        "probabilities add up to at least p, the token that crosses the line included. What is left is scaled to "
        "add up to 100 %."
    )
