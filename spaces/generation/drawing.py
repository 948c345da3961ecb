"""How tokens and the context window are drawn; completion and chat share it."""

from __future__ import annotations

from html import escape

from generation.task import Completion
from shared import render
from shared.engines import GeneratedToken


def legend() -> str:
    stops = ",".join(render.CIVIDIS)
    return (
        '<div class="legend">how sure the model was of each token: 0 %'
        f'<i style="background:linear-gradient(90deg,{stops})"></i>100 %</div>'
    )


def coloured(token: GeneratedToken) -> str:
    p = token.probability
    return (
        f'<span class="t" style="background:{render.colour(p)};color:{render.ink_on(p)}" '
        f'title="{render.percent(p)}">{escape(token.text)}</span>'
    )


def gauge(result: Completion) -> str:
    share = result.context_used / max(result.context_window, 1)
    return (
        f'<span class="gauge"><i style="width:{100 * share:.1f}%"></i></span>'
        f"{result.context_used:,} of {result.context_window:,} tokens"
    )
