"""Input components that several Spaces have, and the calls that they make."""

from __future__ import annotations

from typing import Any

import gradio as gr

from shared.page.inputs import Values
from shared.serving.requests import Request, bounds


def slider(model: type[Request], name: str, label: str, **changes: Any) -> gr.Slider:
    """A slider with the range, step, default and description of the request's field."""
    return gr.Slider(**{"label": label, **bounds(model, name), **changes})


def examples_table(columns: tuple[str, str], shares: tuple[int, int], label: str, start: Values, height: int) -> Any:
    """The table for the field `examples`: rows of two texts. `shares` are the columns' widths in percent."""
    return gr.Dataframe(
        start.get("examples"),
        headers=[*columns],
        datatype="str",
        type="array",
        column_count=2,
        column_widths=[f"{share}%" for share in shares],
        label=label,
        wrap=True,
        max_height=height,
        interactive=True,
    )


def zero_one_few(values: Values, *, always: bool = False) -> list[tuple[str, Values]]:
    """The same call with no example, with the first, and with all, so that their effect is seen.

    Without examples it is one call, under the title of zero-shot only where `always` says so.
    """
    examples = values["examples"] or []
    if not examples and not always:
        return [("", {**values, "examples": []})]
    calls = [("Zero-shot", {**values, "examples": []})]
    if examples:
        calls.append(("One-shot", {**values, "examples": examples[:1]}))
    if len(examples) > 1:
        calls.append((f"Few-shot ({len(examples)})", {**values, "examples": examples}))
    return calls
