"""The suite, and in the same app two endpoints that do nothing: what a call costs there at the least.

`/noop` is a function, `/noop_stream` an async generator as the suite's own endpoints are. Their inputs and outputs are
of the size of `/zero_shot`'s. Run by `python -m benchmarks`.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

from shared.settings import Settings
from shared.suite import serve
from shared.transport.gradio.mount import import_gradio

ANSWER = {"label": "nothing", "confidences": [{"label": "nothing", "confidence": 1.0}], "details": {}}


def noop(text, candidate_labels=""):
    return {**ANSWER, "text": text}, {}


async def noop_stream(text, candidate_labels=""):
    yield {**ANSWER, "text": text}, {}


# Gradio reads the type hints as objects, and this module's would be strings.
noop.__annotations__ = {"text": str, "candidate_labels": str, "return": tuple[dict, dict]}
noop_stream.__annotations__ = dict(noop.__annotations__)


def main() -> None:
    import_gradio()
    import gradio as gr

    from shared.page import build as page

    build = page.build

    def build_with_noops(*arguments: Any, **named: Any) -> Any:
        blocks = build(*arguments, **named)
        with blocks:
            for function in (noop, noop_stream):
                gr.api(function, api_name=function.__name__, concurrency_limit=None)
        return blocks

    with patch.object(page, "build", build_with_noops):
        serve(Settings(port=int(sys.argv[sys.argv.index("--port") + 1])))


if __name__ == "__main__":
    main()
