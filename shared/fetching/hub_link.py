"""Whether a Hub can be asked, and the client that asks it.

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` mean what they mean to `huggingface_hub`, which reads them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from shared.errors import SuiteError
from shared.fetching.hub_errors import cause

State = Literal["off", "asking", "answers", "silent", "offline"]

ASK_AGAIN = 60.0
"""Seconds after which a Hub that did not answer is asked again, when somebody opens the page."""
PATIENCE = 5.0
"""Seconds that the background question may take."""


class HubLink:
    """Whether a Hub answers: asked once, in the background, so that no request waits for the answer."""

    def __init__(self, profile: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self.state: State = "off" if profile == "embedded" else "asking"
        self.reason = "the profile is embedded" if profile == "embedded" else "the Hub has not answered yet"

    def ask(self) -> threading.Thread | None:
        """Asks in the background whether a Hub answers; does nothing where that is not wanted or just happened."""
        with self._lock:
            recently = self._asked_at is not None and self._clock() - self._asked_at < ASK_AGAIN
            if self.state in ("off", "offline", "answers") or recently:
                return None
            self._asked_at = self._clock()
        thread = threading.Thread(target=self._ask, name="ask-hub", daemon=True)
        thread.start()
        return thread

    def _ask(self) -> None:
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            self._became("offline", "HF_HUB_OFFLINE is set")
            return
        from huggingface_hub.utils import get_session

        try:
            # Any answer will do, a refusal too: it shows that a Hub can be reached.
            answer = get_session().get(f"{constants.ENDPOINT}/api/models", params={"limit": 1}, timeout=PATIENCE)
            if answer.status_code >= 500:
                self._became("silent", f"the Hub answered {answer.status_code}")
            else:
                self._became("answers", "")
        except Exception as error:  # of httpx, ssl, the proxy, name resolution…: all say that no Hub can be used
            self._became("silent", f"no Hub answers ({cause(error)})")

    def _became(self, state: State, reason: str) -> None:
        with self._lock:
            self.state, self.reason = state, reason

    def require(self) -> None:
        """Raises `SuiteError` where no network may be used. A Hub that was silent is tried all the same."""
        if self.state in ("off", "offline"):
            raise SuiteError(f"nothing can be fetched from the Hub: {self.reason}")

    @property
    def api(self) -> Any:
        """A `huggingface_hub.HfApi` for the configured endpoint and token."""
        from huggingface_hub import HfApi, constants

        return HfApi(endpoint=constants.ENDPOINT)

    def report(self) -> dict[str, str]:
        return {"state": self.state, "reason": self.reason}
