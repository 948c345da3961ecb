"""How tokens are drawn: the controls that completion and chat share, each with the line its field has for it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from generation.task import Generate
from shared.page.form import Page, slider


def sampling_controls(page: Page, endpoint: str) -> dict[str, Any]:
    return {
        "temperature": slider(Generate, "temperature", "Temperature", step=0.05),
        "top_k": slider(Generate, "top_k", "Top-k"),
        "top_p": slider(Generate, "top_p", "Top-p", minimum=0.05, step=0.05),
        "repetition_penalty": slider(Generate, "repetition_penalty", "Repetition penalty", step=0.05),
        "seed": gr.Number(0, label="Seed", info=Generate.model_fields["seed"].description, precision=0, minimum=0),
        "model": page.models(endpoint),
    }
