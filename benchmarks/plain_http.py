"""A call without `gradio_client`: `POST /gradio_api/call/v2/<name>`, then its event stream. Standard library only."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

CALL_SECONDS = 300.0


class PlainClient:
    """One kept-open connection; for one thread."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=CALL_SECONDS)

    def call(self, api_name: str, inputs: dict[str, Any]) -> Any:
        """The last outputs. Raises `RuntimeError` where the server refuses the call or it fails."""
        path = f"/gradio_api/call/v2{api_name}"
        event = json.loads(self._ask("POST", path, json.dumps(inputs)))["event_id"]
        return last_data(self._ask("GET", f"{path}/{event}"))

    def _ask(self, method: str, path: str, body: str | None = None) -> str:
        headers = {"Content-Type": "application/json"}
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
        except (ConnectionError, http.client.HTTPException):  # the server lets go of a connection that was idle
            self._connection.close()
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path} was answered with {answer.status}: {text[:200]}")
        return text

    def close(self) -> None:
        self._connection.close()


def last_data(stream: str) -> Any:
    """The outputs of the event stream's `complete`."""
    event = ""
    for line in stream.splitlines():
        kind, _, value = line.partition(": ")
        if kind == "event":
            event = value
        elif kind == "data" and event == "complete":
            return json.loads(value)
        elif kind == "data" and event == "error":
            raise RuntimeError(f"the call failed: {value[:200]}")
    raise RuntimeError(f"the stream ended without a result: {stream[-200:]}")
