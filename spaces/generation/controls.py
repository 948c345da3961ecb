"""How tokens are drawn: the controls that completion and chat share, each with the line its field has for it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from generation.task import Generate
from shared.page.controls import slider
from shared.page.tab import Tab


def sampling_controls(tab: Tab, endpoint: str) -> dict[str, Any]:
    return {
        "temperature": slider(Generate, "temperature", "Temperature", step=0.05),
        "top_k": slider(Generate, "top_k", "Top-k"),
        "top_p": slider(Generate, "top_p", "Top-p", minimum=0.05, step=0.05),
        "repetition_penalty": slider(Generate, "repetition_penalty", "Repetition penalty", step=0.05),
        "seed": gr.Number(0, label="Seed", info=Generate.model_fields["seed"].description, precision=0, minimum=0),
        "model": tab.models(endpoint),
    }
