"""The chat form: a transcript instead of a result, and a history that belongs to one visitor."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from html import escape
from typing import Any

import gradio as gr

from generation.controls import sampling_controls
from generation.drawing import coloured, gauge, legend
from generation.task import Chat, Completion, Generate
from shared import render
from shared.errors import Cancelled, SuiteError
from shared.events import Done, Partial, RunInfo
from shared.inputs import PRIVATE
from shared.requests import NO_TEXT
from shared.ui import STOPPED, Page, busy_buttons, example_buttons, idle_buttons, same_buttons, slider

History = list[dict[str, str]]


def build_chat(page: Page) -> None:
    endpoint = page.space.endpoint("chat")
    examples = page.space.examples["chat"]
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            message = gr.Textbox(
                examples[0]["inputs"]["message"], label="Message", lines=3, max_lines=10, elem_id="chat-message"
            )
            components = {"message": message, **settings(page)}
            with gr.Row():
                send = gr.Button("Send", variant="primary", scale=2, min_width=90, elem_id="chat-run")
                stop = gr.Button("Stop", interactive=False, min_width=70, elem_id="chat-stop")
                clear = gr.Button("New chat", min_width=90, elem_id="chat-clear")
            buttons = example_buttons([example["title"] for example in examples])
        with gr.Column(scale=6, min_width=320):
            transcript = gr.HTML(render.shown(EMPTY), elem_id="chat-result", elem_classes="result-block")
            account = gr.HTML(render.run_line(None), elem_id="chat-account")
            with gr.Accordion("What happened", open=False):
                what = gr.HTML('<p class="empty">Send a message first.</p>', elem_classes="what")
            with gr.Accordion("Call it from a program", open=False) as call_it:
                snippets = gr.HTML()
    inputs = page.take_inputs(endpoint, components)
    call_it.expand(inputs.snippets, inputs.fields, snippets, **PRIVATE)
    # One visitor's conversation; Gradio keeps it under that visitor's session alone.
    history = gr.State([])

    async def answer(request: gr.Request, past: History, *raw: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        values = inputs.values(raw)
        asked: History = [*past, {"role": "user", "content": values["message"] or ""}]
        keep = gr.skip()
        emptied: Any = ""
        try:
            yield drawn(asked, None, render.waiting(Partial(None))), keep, keep, keep, keep, *busy_buttons()
            # A model may write what a request may not hold; its next turn is asked for all the same.
            sent = [{**message, "content": NO_TEXT.sub("", message["content"])} for message in past[-LONGEST_CHAT:]]
            call = {**values, "history": sent}
            async with aclosing(page.edge.events(endpoint, call, request)) as events:
                async for event in events:
                    if not isinstance(event, (Partial, Done)):
                        # Only before the first token; a heartbeat must not blank what was said.
                        yield drawn(asked, None, render.waiting(event)), keep, keep, keep, keep, *same_buttons()
                        continue
                    # The state is written with every token, so that what was said before Stop stays in the history.
                    now: History = [*asked, {"role": "assistant", "content": event.result.text}]
                    line, told = keep, keep
                    if isinstance(event, Done):
                        line, told = account_of(event.run, event.result), explained(event.result)
                    yield drawn(asked, event.result), now, emptied, line, told, *same_buttons()
                    emptied = keep  # once, so that the next message can be typed meanwhile
            yield keep, keep, keep, keep, keep, *idle_buttons()
        except SuiteError as error:
            yield drawn(past, None, render.problem(error)), past, keep, keep, keep, *idle_buttons()
        except Cancelled:
            yield keep, keep, keep, keep, keep, *idle_buttons()

    outputs = [transcript, history, message, account, what, send, stop]
    runs: list[Any] = [
        send.click(answer, [history, *inputs.fields], outputs, **PRIVATE),
        message.submit(answer, [history, *inputs.fields], outputs, **PRIVATE),
    ]
    for button, example in zip(buttons, examples, strict=True):
        fill = button.click(
            lambda e=example: (e["inputs"]["message"], e["inputs"].get("system_prompt", "")),
            None,
            inputs.fields[:2],
            queue=False,
            **PRIVATE,
        )
        runs.append(fill.then(answer, [history, *inputs.fields], outputs, **PRIVATE))
    stop.click(
        lambda shown, past: (drawn(past, None) if "waiting" in (shown or "") else gr.skip(), STOPPED, *idle_buttons()),
        [transcript, history],
        [transcript, account, send, stop],
        cancels=runs,
        queue=False,
        **PRIVATE,
    )
    clear.click(
        lambda: (render.shown(EMPTY), [], "", render.run_line(None), "", *idle_buttons()),
        None,
        outputs,
        cancels=runs,
        queue=False,
        **PRIVATE,
    )


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
            **sampling_controls(page, "conversational"),
        }


def drawn(history: Sequence[dict[str, str]], reply: Completion | None, after: str = "") -> str:
    """The conversation; the reply under way comes last and is left open, so that only additions are sent."""
    turns = "".join(turn(message["role"], escape(message["content"])) for message in history)
    if reply is not None:
        turns += '<div class="turn assistant"><div class="who">Model</div><div class="said">' + escape(reply.text)
    if not turns and not after:
        turns = EMPTY
    return f'<div class="shown transcript" aria-live="polite">{turns}{after}'


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
        f'<div class="completion">{"".join(coloured(token) for token in result.tokens)}</div>'
        f"<h4>The exact prompt</h4><pre>{escape(result.prompt)}</pre>{render.tools(result.text, 'reply.txt')}"
    )
