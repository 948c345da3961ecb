"""The Reading tab."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import gradio as gr

from reading.task import AnswerQuestion, Answers, Filled, FillMask
from shared.page import render
from shared.page.form import Look, Page, slider
from shared.page.inputs import Values


def build(page: Page) -> None:
    with gr.Tabs(elem_id="reading-forms"):
        with gr.Tab("Question answering", id="answer_question"):
            page.form(
                "answer_question",
                question_inputs(page),
                Look(answers, explain_answers, text=lambda result: "\n".join(a.text for a in result.answers)),
                action="Find the answer",
            )
        with gr.Tab("Masked word", id="fill_mask"):
            page.form("fill_mask", mask_inputs(page), Look(words, explain_words), action="Guess")


def question_inputs(page: Page) -> Any:
    def inputs(start: Values) -> dict[str, Any]:
        return {
            "question": gr.Textbox(start.get("question"), label="Question", max_lines=3, elem_id="answer-question"),
            "text": gr.Textbox(start.get("text"), label="Text", lines=9, max_lines=16, elem_id="answer-text"),
            "top_k": slider(AnswerQuestion, "top_k", "Answers"),
            "model": page.models("answer_question"),
        }

    return inputs


def mask_inputs(page: Page) -> Any:
    def inputs(start: Values) -> dict[str, Any]:
        return {
            "text": gr.Textbox(
                start.get("text"),
                label="Text with [MASK]",
                info="Put [MASK] in the place of a word.",
                lines=3,
                max_lines=10,
                elem_id="fill_mask-text",
            ),
            "top_k": slider(FillMask, "top_k", "Words"),
            "model": page.models("fill_mask"),
        }

    return inputs


def answers(result: Answers, values: Values) -> str:
    """The likeliest answer, its rivals, and where they stand in the text."""
    if not result.answers:
        return '<p class="empty">No answer was found in the text.</p>'
    rows = "".join(render.bar(short(answer.text), answer.score) for answer in result.answers)
    marked = sorted(result.answers[:1], key=lambda answer: answer.start)
    pieces, place = [], 0
    for answer in marked:
        pieces += [escape(result.text[place : answer.start]), f"<mark>{escape(answer.text)}</mark>"]
        place = answer.end
    body = "".join([*pieces, escape(result.text[place:])])
    return (
        f'<p class="answer">{escape(result.answers[0].text)}</p>{rows}'
        f'<h4>In the text</h4><div class="source">{body}</div>'
    )


def short(text: str, most: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def explain_answers(result: Answers, values: Values) -> str:
    return f"<h4>Method</h4>{escape(result.method)}. A model of this kind points at words of the text; it adds none."


def words(result: Filled, values: Values) -> str:
    """For each mask its likeliest words; the text with the likeliest ones filled in comes first."""
    likeliest = [row[0].text for row in result.masks if row]
    pieces = re.split(r"\[MASK\]|<mask>", result.text)
    filled = escape(pieces[0])
    for word, piece in zip(likeliest, pieces[1:], strict=False):
        filled += f"<mark>{escape(word)}</mark>{escape(piece)}"
    parts = [f'<div class="source prose-text">{filled}</div>']
    for number, row in enumerate(result.masks, 1):
        if len(result.masks) > 1:
            parts.append(f"<h4>Mask {number}</h4>")
        parts.append("".join(render.bar(token.text or "(nothing)", token.probability) for token in row))
    return "".join(parts)


def explain_words(result: Filled, values: Values) -> str:
    return (
        f"<h4>Method</h4>The model reads the whole text, both sides of the mask ({escape(result.mask_token)} in its "
        "own vocabulary), and gives every token a probability there. Masks are judged each by itself, the others still "
        "covered."
    )
