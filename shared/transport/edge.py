"""Where requests enter: who asks, and the events of an endpoint as an async generator. Free of Gradio."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.events import Event
from shared.serving.context import Context
from shared.serving.endpoint import Endpoint
from shared.serving.runtime import Runtime
from shared.serving.traffic import Traffic
from shared.transport.admin import is_admin
from shared.transport.pump import pump


@dataclass(frozen=True)
class Edge:
    """What every transport needs: the shared parts, the account of traffic, and threads for task functions."""

    runtime: Runtime
    traffic: Traffic
    threads: ThreadPoolExecutor
    uploads: Path
    """Folder that callers' files are put into, and the only one that they may name files of."""

    def context(self, request: Any, *, may_download: bool | None = None) -> Context:
        """Whose request this is: Gradio's, Starlette's, or None within the process.

        A session's name is its own choice, so the address comes first in the key that tells visitors apart.
        `may_download` is as in `Context`, but in the hub profile nobody is asked first.
        """
        client = getattr(getattr(request, "client", None), "host", "local") or "local"
        session = getattr(request, "session_hash", "") or ""
        admin = is_admin(self.runtime.settings, request)
        if may_download is False and self.runtime.settings.profile == "hub":
            may_download = None  # who chose this profile agreed for its visitors
        return Context(self.runtime, f"{client}/{session}", admin, may_download=may_download)

    async def events(
        self,
        endpoint: Endpoint,
        values: dict[str, Any],
        request: Any,
        *,
        may_download: bool | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The endpoint's events, partial results skipped where newer ones are there. Ends with `Done` or an error.

        `may_download` is as in `context`.
        """
        context = self.context(request, may_download=may_download)
        async with aclosing(pump(endpoint.run(values, context, self.traffic), context.cancel, self.threads)) as events:
            async for event in events:
                yield event
