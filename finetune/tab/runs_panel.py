"""The right side of the tab: the runs of this machine, one of them in full, and what can be done with it."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from finetune.run import background
from finetune.run_folder import ACTIVE_STATES, Run, all_runs, run_of
from finetune.tab.drawing import draw_run, menu_line
from finetune.tab.publish_route import FORM
from shared.errors import SuiteError
from shared.page import render
from shared.page.driver import Updates, errors_in
from shared.page.inputs import PRIVATE
from shared.settings import Settings
from shared.transport.admin import is_admin, require_admin

POLL_SECONDS = 1.0
"""Seconds between two looks at a run that is at work."""

NO_RUN = render.shown(
    '<p class="empty">No run yet. Estimate says how long a recipe takes and how much memory it needs; Start trains it, '
    "measures it against its base on rows that it has not seen, and offers the result in the other tabs.</p>"
)

ABOUT_PUBLISHING = (
    '<p class="limits">Pushes the run that is shown above, with a card that says how it was made and measured. The '
    "token is used once and never stored.</p>"
)


class RunsPanel:
    """Lays itself out where it is made. Every event asks on the server whether the visitor is the admin."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        with gr.Row(equal_height=False):
            # Any value is taken and looked up by name: choices do not outlive the suite, and a page may.
            self.menu = gr.Dropdown([], label="Run", allow_custom_value=True, scale=4, elem_id="finetune-runs")
            self.refresh = gr.Button("Refresh", size="sm", min_width=70, scale=0, elem_id="finetune-refresh")
        self.view = gr.HTML(NO_RUN, elem_id="finetune-view", elem_classes="result-block")
        with gr.Row():
            self.stop_button = gr.Button("Stop", interactive=False, min_width=80, elem_id="finetune-stop")
            self.resume_button = gr.Button("Resume", interactive=False, min_width=80, elem_id="finetune-resume")
        self.said = gr.HTML("", elem_id="finetune-acted", padding=False)
        with gr.Accordion("Compare", open=False):
            self.other = gr.Dropdown([], label="With", allow_custom_value=True, elem_id="finetune-other")
            compare = gr.Button("Compare", size="sm", elem_id="finetune-compare")
            self.compared = gr.HTML("", elem_id="finetune-compared", padding=False)
        with gr.Accordion("Publish", open=False):
            gr.HTML(ABOUT_PUBLISHING + FORM, padding=False)
        self.timer = gr.Timer(POLL_SECONDS, active=False)

        self.outputs = [self.menu, self.other, self.view, self.timer, self.stop_button, self.resume_button]
        """What `view_of` fills."""
        quick: dict[str, Any] = {"queue": False, **PRIVATE}
        self.menu.input(self.show, self.menu, self.outputs, **quick)
        self.timer.tick(self.tick, self.menu, self.outputs, **quick)
        for button, act in ((self.stop_button, self.stop), (self.resume_button, self.resume)):
            button.click(errors_in(self.said, act), self.menu, [*self.outputs, self.said], **quick)
        compare.click(errors_in(self.compared, self.compare), [self.menu, self.other], self.compared, **quick)

    def view_of(self, name: str | None) -> Updates:
        """The menus, the run of this name or else the newest, a timer that ticks while it is at work, Stop, Resume."""
        runs = all_runs(self.settings)
        chosen = next((run for run in runs if run.folder.name == name), runs[0] if runs else None)
        if chosen is None:
            nothing, off = gr.Dropdown([], value=None), gr.Button(interactive=False)
            inactive = {self.timer: gr.Timer(active=False), self.stop_button: off, self.resume_button: off}
            return {self.menu: nothing, self.other: nothing, self.view: NO_RUN, **inactive}
        others = [(menu_line(run), run.folder.name) for run in runs if run.evaluation() and run is not chosen]
        return {
            self.menu: gr.Dropdown([(menu_line(run), run.folder.name) for run in runs], value=chosen.folder.name),
            self.other: gr.Dropdown(others),
            **self._about(chosen),
        }

    def _about(self, run: Run) -> Updates:
        """The run, the timer, Stop, Resume."""
        at_work = run.state() in ACTIVE_STATES
        resumable = not at_work and (run.evaluation() is None or bool(run.status().error))
        return {
            # With its name, which the form for publishing reads from here.
            self.view: f'<div data-run="{escape(run.folder.name)}">{draw_run(run, self.settings)}</div>',
            self.timer: gr.Timer(active=at_work),
            self.stop_button: gr.Button(interactive=at_work),
            self.resume_button: gr.Button(interactive=resumable),
        }

    # -- events --------------------------------------------------------------------------------

    def show(self, request: gr.Request, name: str | None) -> Updates:
        if not is_admin(self.settings, request):
            return {self.timer: gr.Timer(active=False)}
        return self.view_of(name)

    def tick(self, request: gr.Request, name: str | None) -> Updates:
        """The run alone while it is at work: a menu that changes under the hand cannot be used."""
        run = self._find(name)
        if run is None or run.state() not in ACTIVE_STATES or not is_admin(self.settings, request):
            return self.show(request, name)
        return self._about(run)

    def stop(self, request: gr.Request, name: str | None) -> Updates:
        require_admin(self.settings, request)
        run = self._selected(name)
        if run.state() not in ACTIVE_STATES:
            raise SuiteError("this run is not at work, so there is nothing to stop")
        background.stop(run)
        said = render.note("It stops after the step it is in, and can be resumed from there.")
        return {**self.view_of(name), self.said: said}

    def resume(self, request: gr.Request, name: str | None) -> Updates:
        require_admin(self.settings, request)
        run = self._selected(name)
        if run.state() not in ACTIVE_STATES and run.evaluation() and not run.status().error:
            raise SuiteError("this run is finished; change a setting of the form and start another")
        if run_of(run.recipe, self.settings).folder != run.folder:
            raise SuiteError("this run was begun by another version of the suite, so it cannot go on; start it anew")
        background.start(run.recipe, self.settings, resume=True)
        return {**self.view_of(name), self.said: ""}

    def compare(self, request: gr.Request, one: str | None, other: str | None) -> Updates:
        from finetune.run.job import comparison  # which brings all of scikit-learn

        require_admin(self.settings, request)
        if not other:
            raise SuiteError("choose another run that was measured")
        runs = self._selected(one), self._selected(other)
        if not runs[0].evaluation():
            raise SuiteError("the run that is shown was not measured; Resume measures it")
        rows, note = comparison(runs[0].result, runs[1].result)
        names = [run.folder.name.rpartition("-")[0] for run in runs]
        return {self.compared: render.table(["", *names], rows) + render.note(note and render.sentence(note) + ".")}

    def _selected(self, name: str | None) -> Run:
        found = self._find(name)
        if found is None:
            raise SuiteError("no run is chosen, or it is no longer there; press Refresh")
        return found

    def _find(self, name: str | None) -> Run | None:
        return next((run for run in all_runs(self.settings) if run.folder.name == name), None)
