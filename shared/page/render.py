"""Results as HTML. Every text that came from outside is escaped here, and only here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from shared.errors import NeedsDownload, SuiteError
from shared.events import Event, Loading, Queued, RunInfo, Running

CIVIDIS = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838")
"""Perceptually uniform and the same for colour-blind eyes (Nuñez, Anderton & Renslow 2018), dark to light."""

MOST_BARS = 12
"""Labels shown; the API returns all."""


def colour(share: float) -> str:
    """Cividis colour of a number from 0 to 1."""
    place = max(0.0, min(1.0, share)) * (len(CIVIDIS) - 1)
    low = int(place)
    high = min(low + 1, len(CIVIDIS) - 1)
    mixed = [
        round(a + (b - a) * (place - low))
        for a, b in zip(_channels(CIVIDIS[low]), _channels(CIVIDIS[high]), strict=True)
    ]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def ink_on(share: float) -> str:
    """White or black, whichever reads on `colour(share)`: at least 4.5 : 1 all along the scale."""
    return "#ffffff" if share < 0.47 else "#000000"


def _channels(hexadecimal: str) -> tuple[int, ...]:
    return tuple(int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5))


def percent(share: float) -> str:
    """`93 %`, with decimals where they matter; only certainty is 100 %."""
    value = 100 * share
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.95 <= value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %" if value < 10 or 99.5 <= value < 100 else f"{value:.0f} %"


def legend(text: str = "") -> str:
    """The scale of `colour`."""
    return (
        f'<div class="legend">{text}0 %<i style="background:linear-gradient(90deg,{",".join(CIVIDIS)})"></i>100 %</div>'
    )


def marked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """A text in which these spans, in order and apart, stand out."""
    pieces, place = [], 0
    for start, end in spans:
        pieces += [escape(text[place:start]), f"<mark>{escape(text[start:end])}</mark>"]
        place = end
    return f'<div class="source">{"".join(pieces)}{escape(text[place:])}</div>'


def bars(confidences: Sequence[dict[str, Any]]) -> str:
    """Labels with a bar and a number each, the dozen likeliest of many."""
    rows = [bar(row["label"], row["confidence"]) for row in confidences[:MOST_BARS]]
    more = len(confidences) - MOST_BARS
    if more > 0:
        rows.append(f'<p class="limits">and {more} less likely labels; the API returns all of them</p>')
    return "".join(rows)


def bar(name: str, share: float) -> str:
    return (
        f'<div class="bar"><span class="name" title="{escape(name)}">{escape(name)}</span>'
        f'<span class="track"><i style="width:{100 * share:.2f}%;background:{colour(share)}"></i></span>'
        f'<span class="value">{percent(share)}</span></div>'
    )


def tools(text: str, file_name: str) -> str:
    """Copy and download buttons for a result."""
    quoted = escape(text)
    return (
        f'<div class="tools"><button data-act="copy" data-text="{quoted}">Copy</button>'
        f'<button data-act="save" data-name="{escape(file_name)}" data-text="{quoted}">Download</button>'
        '<button data-act="copy-link">Copy link to this</button></div>'
    )


def unless_empty(text: str) -> str:
    """A notice under an empty result; a model may well generate nothing."""
    return "" if text.strip() else '<p class="empty">The model wrote nothing.</p>'


def note(text: str) -> str:
    return f'<div class="note">{escape(text)}</div>' if text else ""


def problem(error: SuiteError) -> str:
    """An error where the result would stand."""
    field = f"<b>{escape(error.field.replace('_', ' '))}</b> " if error.field else ""
    message = error.message if field else sentence(error.message)
    return f'<div class="problem" role="alert">{field}{escape(message)}.</div>'.replace("..</div>", ".</div>")


def sentence(text: str) -> str:
    """With a capital letter, unless it begins with a name that is not a word: `user/x`, `gpt2`, `config.json`."""
    first = text.split(maxsplit=1)[0].rstrip(".,;:!?") if text.strip() else ""
    return text[:1].upper() + text[1:] if first.isalpha() else text


def question(needed: NeedsDownload) -> str:
    """Stands where the result would, above the button that agrees."""
    return (
        f'<div class="note" role="alert">This needs <b>{escape(needed.checkpoint_id)}</b>, which is on the '
        f"Hub: about {needed.nbytes / 1e6:,.0f} MB to fetch, once.</div>"
    )


def waiting(event: Event) -> str:
    """A waiting event as text, with a progress bar where the total is known."""
    if isinstance(event, Queued):
        return _waiting("Next in the queue" if event.place == 1 else f"In the queue: number {event.place}")
    if isinstance(event, Loading):
        size = f", {event.total / 1e6:,.0f} MB" if event.total and not event.done else ""
        if event.total and event.done:
            digits = 0 if event.total >= 10e6 else 1
            size = f", {event.done / 1e6:,.{digits}f} of {event.total / 1e6:,.{digits}f} MB"
        return _waiting(f"Loading {event.checkpoint}: {event.what}{size}", event.done, event.total)
    if isinstance(event, Running):
        of = f", {event.done} of {event.total}" if event.total > 1 else ""
        return _waiting(f"{(event.what or 'Computing').capitalize()}{of}", event.done, event.total)
    return _waiting("Computing")


def _waiting(text: str, done: int = 0, total: int = 0) -> str:
    return progress(f"{text}…", done / total if total else 0.0)


def progress(text: str, share: float = 0.0) -> str:
    """A status text above a progress bar. `share` is from 0 to 1; 0 means unknown."""
    inside = f'<i style="width:{100 * share:.4g}%"></i>' if share else "<i></i>"
    kind = "track" if share else "track unknown"
    return f'<div class="waiting" role="status">{escape(text)}<div class="{kind}">{inside}</div></div>'


def run_line(run: RunInfo | None) -> str:
    """RunInfo as one muted line, and what the checkpoint cannot do."""
    if run is None:
        return '<div class="run-line"></div>'
    revision = f'<span title="{escape(run.revision)}">{escape(short_revision(run.revision))}</span>'
    checkpoint = f"<b>{escape(run.checkpoint)}</b> @ {revision}"
    if run.adapter:
        name, _, version = run.adapter.partition("@")
        checkpoint += (
            f' + <b>{escape(name)}</b> @ <span title="{escape(version)}">{short_revision(escape(version))}</span>'
        )
    parts = [checkpoint, escape(run.engine)]
    if run.cached:
        parts.append("stored answer")
    parts.append(f"{run.seconds_running:.2f} s computing")
    if run.seconds_queued >= 0.05:
        parts.append(f"{run.seconds_queued:.1f} s queued")
    if run.seconds_loading >= 0.05:
        parts.append(f"{run.seconds_loading:.1f} s loading")
    if run.input_tokens:
        parts.append(f"{run.input_tokens:,} tokens in")
    if run.new_tokens:
        parts.append(f"{run.new_tokens:,} new")
    if run.tokens_per_second:
        parts.append(f"{run.tokens_per_second:.0f} tokens/s")
    return f'{note(run.warning)}<div class="run-line">{" · ".join(parts)}<br>{escape(run.limits)}</div>'


def short_revision(revision: str) -> str:
    """A commit as people write it: its first digits."""
    is_commit = len(revision) == 40 and all(digit in "0123456789abcdef" for digit in revision)
    return revision[:8] if is_commit else revision


def shown(inside: str) -> str:
    """The frame results stand in; keeps its height, so nothing jumps."""
    return f'<div class="shown">{inside}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[str] = ()) -> str:
    """A plain table; columns named in `numbers` are right-aligned."""
    kinds = [' class="number"' if name in numbers else "" for name in columns]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(columns, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{escape(str(v))}</td>" for v, k in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table class="grid"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
