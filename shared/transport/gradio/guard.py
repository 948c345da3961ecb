"""Checks calls where Gradio itself would answer 500 and print the visitor's input to the log."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.transport.http import LONGEST_BODY

CALL = "/gradio_api/call/v2/"


class StrictBlocks(gr.Blocks):
    """Blocks that refuse wrong inputs in words."""

    def __init__(self, *, most_waiting: int, **options: Any) -> None:
        """`most_waiting`: requests in Gradio's queue."""
        self._most_waiting = most_waiting
        super().__init__(**options)

    def queue(self, *args: Any, **options: Any) -> Any:
        """Gradio's constructor calls this, and each call makes the whole app anew: so ours are the defaults here."""
        ours = {"api_open": False, "max_size": self._most_waiting, "default_concurrency_limit": None}
        return super().queue(*args, **{**ours, **options})

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        wanted = len(block_fn.inputs)
        if len(inputs) != wanted:
            raise gr.Error(f"this call takes {wanted} values and was given {len(inputs)}", print_exception=False)

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *rest: Any, **named: Any) -> Any:
        try:
            return await super().preprocess_data(block_fn, inputs, *rest, **named)
        except gr.Error:
            raise
        except Exception:
            labels = ", ".join(str(getattr(block, "label", "") or "value") for block in block_fn.inputs)
            message = f"one of the inputs ({labels}) is not of its kind; a file must have been uploaded first"
            raise gr.Error(message, print_exception=False) from None


class CallGuard:
    """Answers 4xx to `POST /gradio_api/call/v2/<name>` with an unknown endpoint, unknown inputs or a missing one."""

    def __init__(self, app: ASGIApp, blocks: gr.Blocks) -> None:
        self._app = app
        self._blocks = blocks
        self._inputs: dict[str, dict[str, bool]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(CALL):
            await self._app(scope, receive, send)
            return
        body = b""
        more = True
        while more and len(body) <= LONGEST_BODY:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        status, problem = self._judge(scope["path"].removeprefix(CALL).strip("/"), body)
        if problem:
            await JSONResponse({"error": problem}, status_code=status)(scope, receive, send)
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, again, send)

    def _judge(self, name: str, body: bytes) -> tuple[int, str]:
        """Status and message; the message is empty when nothing is wrong."""
        if len(body) > LONGEST_BODY:
            return 413, f"the body is larger than {LONGEST_BODY:,} bytes"
        inputs = self._known().get(name)
        if inputs is None:
            return 404, f"there is no endpoint /{name}; there are {', '.join('/' + known for known in self._known())}"
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            return 400, "the body is not JSON"
        if not isinstance(given, dict):
            return 400, "the body must be a JSON object of inputs by name"
        for field in given:
            if field not in inputs:
                return 422, f"{field[:100]}: is not an input here; those are {', '.join(inputs)}"
        for field, has_default in inputs.items():
            if field not in given and not has_default:
                return 422, f"{field}: is missing"
        return 200, ""

    def _known(self) -> dict[str, dict[str, bool]]:
        """Endpoint → input → whether it has a default."""
        if self._inputs is None:
            described: Any = self._blocks.get_api_info()
            self._inputs = {
                name.strip("/"): {p["parameter_name"]: p["parameter_has_default"] for p in endpoint["parameters"]}
                for name, endpoint in described["named_endpoints"].items()
            }
        return self._inputs
