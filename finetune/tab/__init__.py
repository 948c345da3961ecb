"""The Fine-tuning tab: a recipe on the left, the runs of this machine on the right.

A run is a process of its own (`finetune.run.background`): the page only reads its folder, so closing the page, or the
suite, changes nothing, and whoever opens it again sees where the run is.
"""

from __future__ import annotations

import gradio as gr

from finetune.tab.publish_route import may_publish
from finetune.tab.recipe_panel import RecipePanel
from finetune.tab.runs_panel import RunsPanel
from shared.page.driver import Updates
from shared.page.inputs import PRIVATE
from shared.page.models_tab import sign_in_form
from shared.transport.edge import Edge

SUMMARY = (
    "Adapt a checkpoint to rows of your own, see on rows it has not met whether it got better, and publish it. A run "
    "goes on when this page, or the suite, is closed."
)


def build(edge: Edge, tab: gr.Tab) -> None:
    """The tab's content."""
    settings = edge.runtime.settings
    gr.HTML(f'<p class="space-summary">{SUMMARY}</p>', padding=False)
    sign_in = gr.HTML(sign_in_form("Training and publishing"), visible=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            recipe = RecipePanel(edge)
        with gr.Column(scale=7, min_width=320):
            runs = RunsPanel(settings)
    recipe.wire(runs)

    def opened(request: gr.Request, name: str | None) -> Updates:
        return {**runs.show(request, name), sign_in: gr.HTML(visible=not may_publish(settings, request))}

    for event in (tab.select, runs.refresh.click):
        event(opened, runs.menu, [*runs.outputs, sign_in], queue=False, **PRIVATE)
