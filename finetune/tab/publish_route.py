"""`POST /finetune/publish`: pushes a run's result to a Hub with a token that is never stored.

The token is no component's value, since those reach the browser's history and the server's event log. It is typed into
a plain field, sent in this request's body, and handed to the publishing process through a pipe: it is in no file, no
command line, no environment that others could read, and no answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from finetune.run.background import ROOT, command, environment
from finetune.run_folder import Run, all_runs
from shared.settings import Settings
from shared.transport.admin import is_admin, shows_token

log = logging.getLogger(__name__)

LONGEST_BODY = 4096

_publishing: set[asyncio.Task[None]] = set()
"""Keeps what publishes alive when its page is closed."""


class PublishRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    run: str
    repo: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$")
    token: SecretStr = Field(min_length=1, max_length=500)
    public: bool = False
    force: bool = False


def routes(settings: Settings) -> list[Route]:
    """`POST /finetune/publish`: publishes a result; its progress is lines of text, the last one `done` or `failed`.

    403 for a caller who is not the admin or comes from another site, 400 and 415 for any other kind of request.
    """

    async def publish(request: HttpRequest) -> Response:
        if not _from_this_site(request):
            return PlainTextResponse("A page of another site may not publish.", status_code=403)
        if not may_publish(settings, request):
            return PlainTextResponse("Only the admin may publish; sign in with the admin token.", status_code=403)
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return PlainTextResponse("The request must be JSON.", status_code=415)
        wanted = await _read(request)
        if isinstance(wanted, str):
            return PlainTextResponse(wanted, status_code=400)
        run = next((one for one in all_runs(settings) if one.folder.name == wanted.run), None)
        if run is None or not run.result.is_dir():
            return PlainTextResponse("There is no finished run of that name.", status_code=400)
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        task = asyncio.create_task(_publish(run, wanted, settings, lines))
        _publishing.add(task)
        task.add_done_callback(_publishing.discard)
        return StreamingResponse(_stream(lines), media_type="text/plain; charset=utf-8")

    return [Route("/finetune/publish", publish, methods=["POST"])]


def may_publish(settings: Settings, request: Any) -> bool:
    """Where visitors log in, the admin must show the token: Gradio's own log-in does not cover this route."""
    return (shows_token if settings.auth.get_secret_value() else is_admin)(settings, request)


async def _read(request: HttpRequest) -> PublishRequest | str:
    """The request, or an error text, which never quotes the request."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            return "The request is too long."
    try:
        wanted = PublishRequest.model_validate(json.loads(body))
        return wanted if wanted.token.get_secret_value().strip() else "A token of the Hub is needed."
    except ValidationError as error:
        names = {str(detail["loc"][0]) for detail in error.errors(include_input=False) if detail["loc"]}
        if "repo" in names:
            return "The repository must be user/name, of letters, digits, dots, dashes and underscores."
        return "A token of the Hub is needed." if "token" in names else "There is no such setting."
    except ValueError:
        return "The request must be JSON."


async def _publish(run: Run, wanted: PublishRequest, settings: Settings, lines: asyncio.Queue[str | None]) -> None:
    try:
        await lines.put("done" if await _run_publisher(run, wanted, settings, lines) else "failed")
    except Exception as error:  # what it says may hold anything
        log.warning("publishing broke off (%s)", type(error).__name__)
        await lines.put("The publishing broke off; the server's log says more.\nfailed")
    finally:
        await lines.put(None)


async def _run_publisher(
    run: Run, wanted: PublishRequest, settings: Settings, lines: asyncio.Queue[str | None]
) -> bool:
    token = wanted.token.get_secret_value().strip()
    flags = ["--token-from-stdin", *(["--public"] if wanted.public else []), *(["--force"] if wanted.force else [])]
    process = await asyncio.create_subprocess_exec(
        *command("publish", run.result, wanted.repo, *flags),
        cwd=ROOT,
        env=environment(settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(token.encode() + b"\n")
        process.stdin.close()
        while line := await process.stdout.readline():
            text = line.decode("utf-8", errors="replace").rstrip().rpartition("\r")[2]
            await lines.put(text.replace(token, "…"))
        return await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


async def _stream(lines: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    while (line := await lines.get()) is not None:
        yield re.sub(r"[\x00-\x08\x0b-\x1f]", "", line) + "\n"


def _from_this_site(request: HttpRequest) -> bool:
    """A page of another site may send a request with the visitor's cookies; browsers say where it came from."""
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")


FORM = (
    '<div class="admin-form publish-form"><label>Repository <input name="repo" placeholder="user/name" '
    'autocomplete="off" spellcheck="false"></label><label>Token of the Hub, with the right to write <input '
    'type="password" name="token" autocomplete="off"></label><label><input type="checkbox" name="public"> for '
    'everybody to see</label><label><input type="checkbox" name="force"> even if it is not better than its base'
    '</label><button data-act="publish">Publish</button><pre role="status"></pre></div>'
)
"""The token is used once; it is neither stored nor shown."""
