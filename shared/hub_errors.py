"""What the Hub's client raises, in words for the person who asked: what happened, why, what to do."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from typing import TypeVar

from shared.errors import SuiteError, UnknownCheckpoint

T = TypeVar("T")

LONGEST_WAIT = 30.0
"""Seconds that the Hub may have us wait (`Retry-After`)."""


class HubRefused(SuiteError):
    """The Hub does not let us have it: gated, private, wrong token."""

    status = 403


class HubUnreachable(SuiteError):
    """The Hub does not answer, or broke off."""

    status = 503


LOG_IN = "set HF_TOKEN to a token of an account that may read it, or run `hf auth login`, and start the suite again"


def in_words(error: Exception, repo: str = "the repository") -> SuiteError:
    """The error as one of ours. Errors of ours are returned as they are.

    Raises the error itself where it is none that the Hub, the network or the disk accounts for: a mistake of ours.
    """
    from huggingface_hub import errors

    if isinstance(error, SuiteError):
        return error
    said = _server_message(error)
    if isinstance(error, errors.GatedRepoError):
        return HubRefused(
            f"{repo} is gated: {said} Ask for access on its page on the Hub; then {LOG_IN}", field="model"
        )
    if isinstance(error, errors.DisabledRepoError):
        return HubRefused(f"{repo} was disabled by the Hub: {said}", field="model")
    status = _status(error)
    if status == 401 and "credentials" in said.lower():
        return HubRefused(f"the Hub does not accept the token it was given ({said}) Correct HF_TOKEN, or remove it")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UnknownCheckpoint(
            f"the Hub has no repository {repo}, or it is private ({said}) Check the spelling; "
            f"if it is private, {LOG_IN}",
            field="model",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownCheckpoint(f"{repo} has no such revision on the Hub ({said})", field="model")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachable("the Hub is not asked because HF_HUB_OFFLINE is set")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return HubUnreachable(f"the Hub did not give a file of {repo}, and it is not on this machine; try again")
    if isinstance(error, errors.EntryNotFoundError):
        return UnknownCheckpoint(f"{repo} lacks a file that it should have ({said})", field="model")
    if isinstance(error, errors.HFValidationError):
        return UnknownCheckpoint(f"{repo} is not a repository id; those look like user/name", field="model")
    if status in (401, 403):
        return HubRefused(f"the Hub does not let us read {repo} ({said}) If you may read it, {LOG_IN}", field="model")
    if status == 429:
        return HubUnreachable("the Hub asks for fewer requests (429); wait a minute and try again")
    if status:
        return HubUnreachable(f"the Hub answered {status} for {repo} ({said}) Try again later")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return SuiteError("the disk is full; make room, or name a folder on a larger disk in HF_HOME, and try again")
    if not isinstance(error, (OSError, *connection_errors())):
        raise error
    return HubUnreachable(
        f"the Hub cannot be reached ({cause(error)}); check the network, the proxy and HF_ENDPOINT. What was "
        "fetched so far is kept, and the next attempt goes on from there"
    )


def connection_errors() -> tuple[type[Exception], ...]:
    """What the Hub's client raises for a connection that failed."""
    import httpx2

    return (httpx2.RequestError,)


def patiently(ask: Callable[[], T], attempts: int = 4, backoff: float = 0.5) -> T:
    """Asks again where the Hub says "too many requests" or fails; the client itself does not."""
    for attempt in range(attempts):
        try:
            return ask()
        except Exception as error:
            status = _status(error)
            if attempt + 1 == attempts or not (status == 429 or status >= 500):
                raise
            wait = str(getattr(error, "response", None) and error.response.headers.get("Retry-After", ""))  # pyright: ignore[reportAttributeAccessIssue]
            time.sleep(max(backoff * 2**attempt, min(float(wait), LONGEST_WAIT) if wait.isdigit() else 0.0))
    raise AssertionError("unreachable")


def _status(error: BaseException) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _server_message(error: BaseException) -> str:
    """The Hub's own words, as one sentence."""
    said = getattr(error, "server_message", None) or str(error)
    line = next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)
    line = re.sub(r"\s*\(Request ID:[^)]*\)", "", line)
    return line if line.endswith((".", "!", "?")) else line + "."


def cause(error: BaseException) -> str:
    """What broke, without an address: it may hold credentials."""
    words = str(error).strip().splitlines()[0] if str(error).strip() else ""
    words = re.sub(r"\S*://\S+", "the address", words)
    return words[:200] or type(error).__name__
