"""The Audio genre tab."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr
import numpy as np

from audio_genre.task import AudioGenre, Genres, Moment
from shared import render
from shared.audio import READABLE, clock
from shared.inputs import Values
from shared.ui import Look, Page, slider

MOST_ROWS = 6
"""Genres with a strip of their own."""
MOST_SEGMENTS = 60
"""Of a strip; each is one window, or the mean of several of a long recording."""
MOST_NUMBERS = 14
"""Segments up to which there is room for numbers in them."""
MOST_TOLD = 200
"""Windows in the table under What happened; the API returns all."""

SYNTHESIZED = (
    "The examples are synthesized: fixed patterns of sine waves and noise, made by a script of ours, no music."
)
TAGS = "Independent tags: each score stands alone, and together they do not make 100 %."
SHARES = "Shares of one whole: these labels exclude each other, and all of them together make 100 %."


def build(page: Page) -> None:
    gr.set_static_paths(page.space.folder / "clips")  # so that an example's path stays what it is
    page.form("audio_genre", inputs(page), Look(genres, explain, text=as_text), action="Listen")
    gr.HTML(f'<p class="limits">{SYNTHESIZED}</p>')


def inputs(page: Page) -> Any:
    def inputs(start: Values) -> dict[str, Any]:
        return {
            "audio": gr.Audio(
                start.get("audio"),
                label="Recording",
                sources=["upload", "microphone"],
                type="filepath",
                editable=False,
                buttons=["download"],
                elem_id="audio_genre-audio",
            ),
            "top_k": slider(AudioGenre, "top_k", "Genres", maximum=20),
            "model": page.models("audio-classification"),
        }

    return inputs


def genres(result: Genres, values: Values) -> str:
    """Scores over the whole recording, then genre over time with the recording to play along."""
    if not result.heard:
        return f'<p class="empty">Nothing but silence so far.</p>{progress(result)}'
    bars = render.bars(result.top(result.scores))
    plain = TAGS if result.multi_label else SHARES
    return f'{bars}<p class="limits">{plain}</p>{progress(result)}{over_time(result, values)}'


def progress(result: Genres) -> str:
    if result.finished:
        return ""
    done, total = len(result.moments), result.expected
    return (
        f'<div class="waiting" role="status">{done} of {total} windows heard…<div class="track">'
        f'<i style="width:{100 * done / total:.0f}%"></i></div></div>'
    )


def over_time(result: Genres, values: Values) -> str:
    pieces = segments(result.moments, MOST_SEGMENTS)
    rows = [strip(result, label, pieces) for label in best_rows(result)]
    if result.finished and result.picture is not None:
        picture = f'<img src="{result.picture.data_uri()}" alt="Log-mel spectrogram: time to the right, pitch upwards">'
        rows.append(f'<span class="name">Spectrum</span><div class="strip picture">{picture}</div>')
    end = clock(result.moments[-1].end)
    rows.append(f'<span class="name"></span><div class="ends"><span>0:00</span><span>{end}</span></div>')
    return (
        f"<h4>Over time</h4>{player(values) if result.finished else ''}"
        f'<div class="over-time">{"".join(rows)}</div>{legend()}{silence(result)}'
    )


def best_rows(result: Genres) -> list[int]:
    """Labels of the strips, by their score over the whole recording."""
    return [int(label) for label in np.argsort(-result.scores, kind="stable")[: min(result.top_k, MOST_ROWS)]]


def segments(moments: tuple[Moment, ...], most: int) -> list[Moment]:
    """The timeline in at most so many pieces: neighbours together, silent only where all of them are."""
    each = -(-len(moments) // most)
    pieces = []
    for start in range(0, len(moments), each):
        some = moments[start : start + each]
        heard = [moment.scores for moment in some if moment.scores is not None]
        pieces.append(Moment(some[0].start, some[-1].end, np.mean(heard, axis=0) if heard else None))
    return pieces


def strip(result: Genres, label: int, pieces: list[Moment]) -> str:
    """One genre over time; each segment is a button that plays the recording from there."""
    name = result.labels[label]
    cells = []
    for piece in pieces:
        when = f"{clock(piece.start)} to {clock(piece.end)}"
        if piece.scores is None:
            told, kind, look, number = f"{when}: silent", "segment silent", "", ""
        else:
            score = float(piece.scores[label])
            told, kind = f"{when}: {name} {render.percent(score)}", "segment"
            look = f"background:{render.colour(score)};color:{render.ink_on(score)};"
            roomy = len(pieces) <= MOST_NUMBERS and 2 * (piece.end - piece.start) > result.window_seconds
            number = f"{100 * score:.0f}" if roomy else ""
        look += f"flex-grow:{max(piece.end - piece.start, 0.1):.2f}"
        cells.append(
            f'<button class="{kind}" data-act="play" data-at="{piece.start:.2f}" title="{escape(told)}" '
            f'aria-label="{escape(told)}" style="{look}">{number}</button>'
        )
    return f'<span class="name" title="{escape(name)}">{escape(name)}</span><div class="strip">{"".join(cells)}</div>'


def player(values: Values) -> str:
    path = values.get("audio")
    if not path:
        return ""
    return (
        f'<audio class="player" controls preload="metadata" src="gradio_api/file={escape(quote(str(path)))}"></audio>'
        '<p class="limits">Click a segment to play the recording from there.</p>'
    )


def legend() -> str:
    colours = ", ".join(render.CIVIDIS)
    return f'<div class="legend">0 %<i style="background:linear-gradient(90deg, {colours})"></i>100 %</div>'


def silence(result: Genres) -> str:
    seconds = sum(moment.end - moment.start for moment in result.moments if moment.scores is None)
    return f'<p class="limits">{seconds:.1f} s of silence were skipped.</p>' if seconds else ""


def explain(result: Genres, values: Values) -> str:
    heard = len(result.heard)
    rows = []
    for moment in result.moments[:MOST_TOLD]:
        best = result.top(moment.scores)[:3] if moment.scores is not None else []
        told = ", ".join(f"{row['label']} {render.percent(row['confidence'])}" for row in best) or "silent"
        rows.append((f"{moment.start:.1f}", f"{moment.end:.1f}", told))
    more = len(result.moments) - MOST_TOLD
    left_out = f'<p class="limits">and {more} more; the API returns all of them</p>' if more > 0 else ""
    return (
        f"<h4>What was heard</h4>{escape(result.sound)}; {result.seconds:.1f} s, mixed to one channel. The model hears "
        f"windows of {result.window_seconds:g} s, one after the other: {heard} of them, and "
        f"{len(result.moments) - heard} silent ones were skipped. The scores over the whole recording are the mean of "
        f"the windows'. (Files: {READABLE}.)<h4>Window by window</h4>"
        + render.table(("from (s)", "to (s)", "best three"), rows, numbers=("from (s)", "to (s)"))
        + left_out
    )


def as_text(result: Genres) -> str:
    return "\n".join(f"{row['label']}\t{row['confidence']:.4f}" for row in result.top(result.scores))
