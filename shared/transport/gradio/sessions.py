"""What Gradio keeps of each session, without the copy of the page that it makes for links of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def keep_sessions_light() -> None:
    """Has Gradio keep no component's configuration with a session.

    It copies that of every component for its deep links, which this page does not have: 0.9 MB for each session of the
    whole suite and, on a busy machine, 66 ms. It keeps 10,000 sessions, and a call by plain HTTP is a session of its
    own. What is left is 28 kB: which components and functions there are, those that were changed for this session, and
    its `gr.State`.
    """
    from gradio.state_holder import SessionState

    if getattr(SessionState, "light", False):
        return
    begin = SessionState.__init__

    def begin_lightly(self: SessionState, blocks: Any) -> None:
        # It takes the configuration of those that are in both.
        begin(self, SimpleNamespace(default_config=blocks.default_config, blocks=()))  # type: ignore[arg-type]

    def nothing(self: SessionState, *_: Any) -> None:
        """There is no configuration to bring up to date."""

    light: dict[str, Any] = {
        "__init__": begin_lightly,
        "_update_config": nothing,
        "_update_value_in_config": nothing,
        "light": True,
    }
    for name, instead in light.items():
        setattr(SessionState, name, instead)
