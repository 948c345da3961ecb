"""Asking before a checkpoint is fetched: the button under the question (`shared.page.render.question`)."""

from __future__ import annotations

from typing import Any

import gradio as gr

from shared.errors import NeedsDownload


def consent_button(name: str) -> gr.Button:
    """What agrees to a download; hidden while there is no question."""
    return gr.Button("", variant="primary", visible=False, elem_id=f"{name}-consent")


def offer(needed: NeedsDownload) -> Any:
    """The button, with what agreeing brings."""
    return gr.Button(f"Fetch it ({needed.nbytes / 1e6:,.0f} MB) and go on", visible=True)


def no_question() -> Any:
    """The button while nothing is asked."""
    return gr.Button(visible=False)
