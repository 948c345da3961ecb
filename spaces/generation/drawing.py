"""How tokens and the context window are drawn; completion and chat share it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from weakref import WeakKeyDictionary

from generation.task import Completion
from shared.engines.protocols import GeneratedToken
from shared.page import render


def legend() -> str:
    return render.legend("how sure the model was of each token: ")


class Drawn:
    """The tokens of one completion as HTML, each drawn once: a growing text is shown twenty times a second."""

    def __init__(self) -> None:
        self._html = ""
        self._tokens = 0

    def upto(self, tokens: Sequence[GeneratedToken]) -> str:
        new = tokens[self._tokens :]
        self._tokens += len(new)
        self._html += "".join(map(coloured, new))
        return self._html


_drawn: WeakKeyDictionary[Completion, Drawn] = WeakKeyDictionary()


def all_coloured(result: Completion) -> str:
    """Every token on the colour of its probability."""
    return _drawn.setdefault(result, Drawn()).upto(result.tokens)


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
