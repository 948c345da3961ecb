"""One Space's tab under construction: what `ui.build` gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shared.page.form import Form, ResultView
from shared.page.inputs import Values
from shared.page.tab_parts import TabParts


@dataclass
class Tab(TabParts):
    """One tab under construction, handed to a Space's `ui.build`."""

    forms: list[Form] = field(default_factory=list)

    def form(self, endpoint: str, inputs: Callable[[Values], dict[str, Any]], view: ResultView, **options: Any) -> Form:
        """Lays out and wires a form; see `Form` for the options."""
        form = Form(self, self.space.endpoint(endpoint), inputs, view, **options)
        self.forms.append(form)
        return form
