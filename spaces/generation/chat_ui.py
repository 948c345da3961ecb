"""The chat form: a transcript instead of a result, and a history that belongs to one visitor."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from generation.controls import sampling_controls
from generation.drawing import all_coloured, gauge, legend
from generation.task import Chat, Completion, Generate
from shared.events import Done, Event, Partial, RunInfo, Running, Waiting
from shared.page import render
from shared.page.comparison import COMPARE, Comparison, columns
from shared.page.driver import Driver, Presenter, Updates, Visitor, consent_button
from shared.page.form import Page, slider
from shared.page.inputs import PRIVATE, Values
from shared.page.showcase import Showcase
from shared.page.stop import STOPPED, Stop
from shared.serving.endpoint import Endpoint
from shared.serving.requests import NO_TEXT

History = list[dict[str, str]]


def build_chat(page: Page) -> None:
    endpoint = page.space.endpoint("chat")
    showcase = Showcase(page.edge.runtime, page.space.examples["chat"])
    examples = showcase.examples
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            message = gr.Textbox(
                examples[0]["inputs"]["message"], label="Message", lines=3, max_lines=10, elem_id="chat-message"
            )
            components = {"message": message, **settings(page)}
            comparison = Comparison(page.edge.runtime, "chat")
            components[COMPARE] = comparison.box
            with gr.Row():
                send = gr.Button("Send", variant="primary", scale=2, min_width=90, elem_id="chat-run")
                stop = Stop("chat", min_width=70)
                clear = gr.Button("New chat", min_width=90, elem_id="chat-clear")
            buttons = page.example_buttons(showcase)
        with gr.Column(scale=6, min_width=320):
            transcript = gr.HTML(render.shown(EMPTY), elem_id="chat-result", elem_classes="result-block")
            consent = consent_button("chat")
            account = gr.HTML(render.run_line(None), elem_id="chat-account")
            with gr.Accordion("What happened", open=False):
                what = gr.HTML('<p class="empty">Send a message first.</p>', elem_classes="what")
            with gr.Accordion("Call it from a program", open=False) as call_it:
                snippets = gr.HTML()
    inputs = page.take_inputs(endpoint, components, (COMPARE,))
    comparison.wire(components)
    call_it.expand(inputs.snippets, inputs.fields, snippets, **PRIVATE)
    # One visitor's conversation; Gradio keeps it under that visitor's session alone.
    parts = Parts(transcript, history := gr.State([]), message, account, what)

    def present(past: History, *raw: Any) -> ChatPresenter:
        values = inputs.values(raw)
        # A model may write what a request may not hold; its next turn is asked for all the same.
        sent = [{**said, "content": NO_TEXT.sub("", said["content"])} for said in past[-LONGEST_CHAT:]]
        # With an adapter compared: the base's reply first, and the adapter's, with which the chat goes on.
        calls = comparison.calls([("", {**values, "history": sent})], values)
        calls = [(title, inputs.without_extras(call)) for title, call in calls]
        return ChatPresenter(endpoint, calls, past, values["message"] or "", parts)

    fields = [history, *inputs.fields]
    driver = Driver(page.edge, present, fields, parts, stop, run_button=send, consent=consent)

    async def new_chat(request: gr.Request) -> Updates:
        await stop.ended(request)  # or what is being said would come back
        empty = {transcript: render.shown(EMPTY), history: [], message: "", account: render.run_line(None), what: ""}
        return empty | driver.idle()

    driver.on(message.submit)
    page.refresh_model(inputs, after=driver.agreed)
    for button, example in zip(buttons, examples, strict=True):
        fill = button.click(
            lambda e=example: (e["inputs"]["message"], e["inputs"].get("system_prompt", "")),
            None,
            inputs.fields[:2],
            queue=False,
            **PRIVATE,
        )
        driver.on(fill.then)
    # In the queue like the answers, so that the page gets it after them.
    clear.click(new_chat, None, driver.outputs, **PRIVATE)


LONGEST_CHAT = 400
"""Messages of a conversation that are sent along; what of them no longer fits the context window is trimmed."""

EMPTY = '<p class="empty">Say something to begin.</p>'


def settings(page: Page) -> dict[str, Any]:
    """The same controls as completion."""
    with gr.Accordion("Settings", open=False):
        return {
            "system_prompt": gr.Textbox(
                "", label="System prompt", info=Chat.model_fields["system_prompt"].description, lines=2
            ),
            "max_new_tokens": slider(Generate, "max_new_tokens", "New tokens"),
            "do_sample": gr.Checkbox(False, label="Sampling", info=Generate.model_fields["do_sample"].description),
            **sampling_controls(page, "chat"),
        }


class Reply(NamedTuple):
    """What a model says, or has said when `run` is there; with a title where two are compared."""

    title: str
    said: Completion
    run: RunInfo | None


class Parts(NamedTuple):
    """What a reply changes on the page."""

    transcript: gr.HTML
    history: gr.State
    message: gr.Textbox
    account: gr.HTML
    what: gr.HTML


class ChatPresenter(Presenter):
    """One message and its reply, or the replies of a base and its adapter."""

    def __init__(
        self, endpoint: Endpoint, calls: Sequence[tuple[str, Values]], past: History, message: str, parts: Parts
    ) -> None:
        self._endpoint, self._calls, self._past, self._parts = endpoint, calls, past, parts
        self._asked: History = [*past, {"role": "user", "content": message}]
        self._said = turns(self._asked)
        self._replies: list[Reply] = []
        self._begun = False
        """Whether something of the reply was shown."""

    def requests(self, visitor: Visitor) -> Iterator[AsyncGenerator[Event, None]]:
        for title, call in self._calls:
            self._title = title
            yield visitor.events(self._endpoint, call)

    def begin(self) -> Updates:
        return {**self.waiting(Running()), self._parts.account: render.run_line(None)}

    def waiting(self, event: Waiting) -> Updates:
        # Only before the first reply; a heartbeat must not blank what was said.
        return {} if self._replies else {self._parts.transcript: drawn(self._said, None, render.waiting(event))}

    async def result(self, event: Partial[Completion] | Done[Completion]) -> Updates:
        parts, result = self._parts, event.result
        reply = Reply(self._title, result, event.run if isinstance(event, Done) else None)
        updates: Updates = {
            parts.transcript: drawn(self._said, [*self._replies, reply]),
            # The state is written with every token, so that what was said before Stop stays in it.
            parts.history: [*self._asked, {"role": "assistant", "content": result.text}],
        }
        if not self._begun:
            updates[parts.message] = ""  # once, so that the next message can be typed meanwhile
            self._begun = True
        if isinstance(event, Done):
            self._replies.append(reply)
            updates |= {parts.account: account_of(event.run, result), parts.what: explained(result)}
        return updates

    def message(self, html: str) -> Updates:
        return {self._parts.transcript: drawn(turns(self._past), None, html), self._parts.history: self._past}

    def stopped(self) -> Updates:
        # Before the first token the message is still where it was typed.
        left = {} if self._begun else {self._parts.transcript: drawn(turns(self._past), None)}
        return {**left, self._parts.account: STOPPED}


def drawn(said: str, replies: Sequence[Reply] | None, after: str = "") -> str:
    """The conversation; the reply under way comes last and is left open, so that only additions are sent."""
    if replies:
        said += '<div class="turn assistant"><div class="who">Model</div><div class="said">'
        if replies[0].title:
            said += columns([(reply.title, escape(reply.said.text), reply.run) for reply in replies])
        else:
            said += escape(replies[0].said.text)
    if not said and not after:
        said = EMPTY
    return f'<div class="shown transcript" aria-live="polite">{said}{after}'


def turns(history: Sequence[dict[str, str]]) -> str:
    """What was said before; drawn once for a reply, however long that grows."""
    return "".join(turn(message["role"], escape(message["content"])) for message in history)


def turn(role: str, said: str) -> str:
    who = "You" if role == "user" else "Model"
    return f'<div class="turn {escape(role)}"><div class="who">{who}</div><div class="said">{said}</div></div>'


def account_of(run: RunInfo, result: Completion) -> str:
    """RunInfo, how full the context window is, and what no longer fitted into it."""
    dropped = ""
    if result.dropped_turns:
        dropped = render.note(
            f"The {result.dropped_turns} oldest turns no longer fit the context window and were left out."
        )
    return f'{dropped}{render.run_line(run)}<div class="run-line">Context window {gauge(result)}</div>'


def explained(result: Completion) -> str:
    return (
        f"<h4>The reply, token by token</h4>{legend()}"
        f'<div class="completion">{all_coloured(result)}</div>'
        f"<h4>The exact prompt</h4><pre>{escape(result.prompt)}</pre>{render.tools(result.text, 'reply.txt')}"
    )
