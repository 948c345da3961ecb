"""The chat form: a transcript instead of a result, and a history that belongs to one visitor."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from generation.controls import sampling_controls
from generation.drawing import all_coloured, gauge, legend
from generation.task import Chat, Completion, Generate
from shared.errors import Cancelled, NeedsDownload, SuiteError
from shared.events import Done, Partial, RunInfo
from shared.page import render
from shared.page.comparison import COMPARE, Comparison, columns
from shared.page.consent import consent_button, no_question, offer
from shared.page.form import Page, slider
from shared.page.inputs import PRIVATE
from shared.page.showcase import Showcase
from shared.page.stop import STOPPED, Stop, busy_buttons, idle_buttons
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
    history = gr.State([])

    async def answer(request: gr.Request, past: History, *raw: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        async with aclosing(answered(request, past, raw, may_download=False)) as shown:
            async for changes in shown:
                yield changes

    async def answer_agreed(request: gr.Request, past: History, *raw: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        """The same, after the visitor agreed to fetch the model."""
        async with aclosing(answered(request, past, raw, may_download=True)) as shown:
            async for changes in shown:
                yield changes

    async def answered(
        request: gr.Request, past: History, raw: Sequence[Any], *, may_download: bool
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        values = inputs.values(raw)
        asked: History = [*past, {"role": "user", "content": values["message"] or ""}]
        keep = gr.skip()
        emptied: Any = ""
        said = turns(asked)
        waiting = drawn(said, None, render.waiting(Partial(None)))
        with stop.run(request) as run:
            try:
                yield waiting, keep, keep, render.run_line(None), keep, *busy_buttons(), no_question()
                # A model may write what a request may not hold; its next turn is asked for all the same.
                sent = [{**message, "content": NO_TEXT.sub("", message["content"])} for message in past[-LONGEST_CHAT:]]
                replies: list[Reply] = []
                # With an adapter compared: the base's reply first, and the adapter's, with which the chat goes on.
                for title, call in comparison.calls([("", {**values, "history": sent})], values):
                    asking = page.edge.events(endpoint, inputs.without_extras(call), request, may_download=may_download)
                    async with aclosing(asking) as events:
                        async for event in events:
                            run.check()
                            if not isinstance(event, (Partial, Done)):
                                # Only before the first token; a heartbeat must not blank what was said.
                                waiting = drawn(said, None, render.waiting(event))
                                yield waiting if not replies else keep, keep, keep, keep, keep, *busy_buttons(), keep
                                continue
                            # The state is written with every token, so that what was said before Stop stays in it.
                            now: History = [*asked, {"role": "assistant", "content": event.result.text}]
                            line, told = keep, keep
                            reply = Reply(title, event.result, event.run if isinstance(event, Done) else None)
                            if isinstance(event, Done):
                                line, told = account_of(event.run, event.result), explained(event.result)
                            shown = drawn(said, [*replies, reply])
                            yield shown, now, emptied, line, told, *busy_buttons(), keep
                            emptied = keep  # once, so that the next message can be typed meanwhile
                            if reply.run:
                                replies.append(reply)
                yield keep, keep, keep, keep, keep, *idle_buttons(), keep
            except NeedsDownload as needed:
                question = drawn(turns(past), None, render.question(needed))
                yield question, past, keep, keep, keep, *idle_buttons(), offer(needed)
            except SuiteError as error:
                wrong = drawn(turns(past), None, render.problem(error))
                yield wrong, past, keep, keep, keep, *idle_buttons(), no_question()
            except Cancelled:
                # Before the first token the message is still where it was typed.
                left = keep if emptied is keep else drawn(turns(past), None)
                left, line = (keep, keep) if run.discarded else (left, STOPPED)
                yield left, keep, keep, line, keep, *idle_buttons(), no_question()

    async def new_chat(request: gr.Request) -> tuple[Any, ...]:
        await stop.ended(request)  # or what is being said would come back
        return render.shown(EMPTY), [], "", render.run_line(None), "", *idle_buttons(), no_question()

    fields = [history, *inputs.fields]
    outputs = [transcript, history, message, account, what, send, stop.button, consent]
    stop.wire(send)
    send.click(answer, fields, outputs, **PRIVATE)
    message.submit(answer, fields, outputs, **PRIVATE)
    page.refresh_model(inputs, after=consent.click(answer_agreed, fields, outputs, **PRIVATE))
    for button, example in zip(buttons, examples, strict=True):
        fill = button.click(
            lambda e=example: (e["inputs"]["message"], e["inputs"].get("system_prompt", "")),
            None,
            inputs.fields[:2],
            queue=False,
            **PRIVATE,
        )
        fill.then(answer, fields, outputs, **PRIVATE)
    # In the queue like the answers, so that the page gets it after them.
    clear.click(new_chat, None, outputs, **PRIVATE)


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
