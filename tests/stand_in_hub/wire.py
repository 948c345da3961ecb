"""HTTP on loopback: a listener that can refuse, a log of requests, and answers to which faults happen."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.stand_in_hub.faults import Faults, pour
from tests.stand_in_hub.refusals import Refusal

NOTED = ("authorization", "if-none-match", "range", "user-agent")


@dataclass
class Request:
    """A request as the log has it. `sent` grows while the answer's body goes out."""

    method: str
    path: str
    """Without quoting and query."""
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Those of `NOTED` that came, by their names in lower case."""
    raw_path: str = field(repr=False)
    """As it came, so that a slash within a name (%2F) can be told from one between names."""
    body: bytes = field(repr=False)
    status: int = 0
    """0 while there is no answer."""
    sent: int = 0
    """Bytes of the answer's body handed to the network."""

    @property
    def range(self) -> str:
        return self.headers.get("range", "")

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
        """JSON."""
        body = json.dumps(value, default=str).encode()
        return cls(status, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})

    @classmethod
    def refusing(cls, refusal: Refusal) -> Answer:
        headers = {"X-Error-Message": refusal.message, **refusal.headers}
        return cls.of(refusal.body, refusal.status, headers | ({"X-Error-Code": refusal.code} if refusal.code else {}))


def content(data: bytes, headers: dict[str, str], asked: str) -> Answer:
    """A file, or the one range of bytes of it that was asked for."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    if not found or found.groups() == ("", ""):
        return Answer(200, data, headers)
    first, last = found.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= stop:
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
    return Answer(206, data[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})


class Listener:
    """One port of loopback, served by a thread per connection, all of which end with `close`."""

    def __init__(self, respond: Callable[[Request], Answer], faults: Faults, log: list[Request]) -> None:
        self.respond = respond
        self.faults = faults
        self.log = log
        self.failures: list[str] = []
        """Tracebacks of our own mistakes."""
        self._port = 0
        self._server: _Server | None = None
        self._refusing: socket.socket | None = None
        self.listen(True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def listen(self, wanted: bool) -> None:
        """Serve, or keep the port and refuse."""
        if wanted and not self._server:
            if self._refusing:
                self._refusing.close()
                self._refusing = None
            self._server = _Server(self._port, self)
            self._port = self._server.server_port
        elif not wanted and self._server:
            self._server.close()
            self._server = None
            # Bound but not listening: nobody else gets the port, and whoever connects is refused.
            self._refusing = socket.socket()
            self._refusing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._refusing.bind(("127.0.0.1", self._port))

    def close(self) -> None:
        self.listen(False)
        if self._refusing:
            self._refusing.close()


class _Server(ThreadingHTTPServer):
    def __init__(self, port: int, listener: Listener) -> None:
        self.listener = listener
        self.connections: dict[socket.socket, threading.Thread] = {}
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="stand-in hub", daemon=True)
        self.thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections = {c: thread for c, thread in self.connections.items() if thread.is_alive()}
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self.connections[request] = thread
        thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side went away between two requests; mistakes of ours are caught before they come here."""

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.thread.join()
        self.server_close()
        for connection, thread in self.connections.items():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)
            if thread.is_alive():
                raise RuntimeError("a connection of the stand-in hub does not end")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def _serve(self) -> None:
        listener = self.server.listener
        address = urlsplit(self.path)
        noted = {name: self.headers[name] for name in NOTED if name in self.headers}
        path = unquote(address.path)
        request = Request(self.command, path, parse_qs(address.query), noted, address.path, self._read_body())
        listener.log.append(request)
        where = unquote(self.path)
        fault = listener.faults.before(request.method, where)
        if fault and fault.hangs:
            fault.hold(self.server.closing)
            if self.server.closing.is_set():
                self.close_connection = True
                return
        answer = self._answer(request, fault.refusal if fault else None)
        request.status = answer.status
        with contextlib.suppress(OSError):  # the other side went away, which some tests are about
            self._send(request, answer, where)
            return
        self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the library named them

    def _answer(self, request: Request, refusal: Refusal | None) -> Answer:
        listener = self.server.listener
        try:
            return Answer.refusing(refusal) if refusal else listener.respond(request)
        except Refusal as refusal:
            return Answer.refusing(refusal)
        except Exception:
            listener.failures.append(f"{request.method} {request.path}\n{traceback.format_exc()}")
            return Answer.refusing(Refusal(500, "The stand-in hub is broken."))

    def _send(self, request: Request, answer: Answer, where: str) -> None:
        listener = self.server.listener
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("X-Request-Id", f"stand-in-{len(listener.log)}")
        self.end_headers()
        if request.method == "HEAD" or not answer.body:
            return
        faults = listener.faults.during(request.method, where) if answer.status < 300 else []

        def write(piece: bytes) -> None:
            request.sent += len(piece)  # before the client has it and looks at the log
            self.wfile.write(piece)

        if not pour(answer.body, faults, write, self.server.closing):
            self.close_connection = True

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = bytearray()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library named it
        pass
