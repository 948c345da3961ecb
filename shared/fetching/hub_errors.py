"""What the Hub's client raises, in words for the person who asked: what happened, why, what to do."""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from shared.errors import SuiteError, UnknownCheckpoint, WeightsCorrupt
from shared.fetching.transfer import pause, seconds_to_wait

T = TypeVar("T")

ATTEMPTS = 4
"""Times that a question is asked while the Hub is busy or fails."""
BACKOFF = 0.5
"""Seconds before the second time; doubled for each further one."""
ANSWER_WITHIN = 20.0
"""Seconds without a byte after which a question or a transfer counts as broken. The client would wait for ever."""
LONGEST_MESSAGE = 300
"""Characters of what the Hub says that are passed on."""


class HubRefused(SuiteError):
    """The Hub refuses a repository: it is gated or private, or the token is wrong."""

    status = 403


class HubUnreachable(SuiteError):
    """The Hub does not answer, or the connection broke."""

    status = 503


LOG_IN = "set HF_TOKEN to a token of an account that may read it, or run `hf auth login`, and start the suite again"

FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def as_suite_error(error: Exception, repo: str = "the repository") -> SuiteError:
    """The error as one of ours. Errors of ours are returned as they are.

    An error that neither the Hub nor the network nor the disk caused is a bug of ours, and raised as it is.
    """
    from huggingface_hub import errors

    if isinstance(error, SuiteError):
        return error
    said = server_message(error)
    status = status_of(error)
    in_its_words = "." if status == 401 and _anonymous() else f" ({said})"
    if isinstance(error, errors.GatedRepoError):
        return HubRefused(
            f"{repo} is gated: {said} Ask for access on its page on the Hub; then {LOG_IN}", field="model"
        )
    if isinstance(error, errors.DisabledRepoError):
        return HubRefused(f"{repo} was disabled by the Hub: {said} Choose another checkpoint", field="model")
    if status == 401 and not _anonymous() and re.search("credentials|token", said, re.IGNORECASE):
        return HubRefused(f"the Hub does not accept the token it was given ({said}) Correct HF_TOKEN, or remove it")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UnknownCheckpoint(
            f"the Hub has no repository {repo}, or it is private{in_its_words} Check the spelling; "
            f"if it is private, {LOG_IN}",
            field="model",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownCheckpoint(
            f"{repo} has no such revision on the Hub ({said}) Name another, or leave out what follows @", field="model"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachable("the Hub is not asked because HF_HUB_OFFLINE is set; unset it, and start the suite again")
    if isinstance(error, errors.EntryNotFoundError):
        return UnknownCheckpoint(
            f"{repo} lacks a file that it should have ({said}) Tell its owner, or choose another checkpoint",
            field="model",
        )
    if isinstance(error, errors.HFValidationError):
        return UnknownCheckpoint(f"{repo[:100]!r} is not a repository id; those look like user/name", field="model")
    if status in (401, 403):
        return HubRefused(
            f"the Hub does not let us read {repo}{in_its_words} If you may read it, {LOG_IN}", field="model"
        )
    if status == 429:
        return HubUnreachable("the Hub asks for fewer requests (429); wait a minute and try again")
    if status:
        way_out = "Try again later" if status >= 500 else "Check the id and HF_ENDPOINT"
        return HubUnreachable(f"the Hub answered {status} for {repo} ({said}) {way_out}")
    if isinstance(error, OSError) and error.errno in FULL:
        return SuiteError("the disk is full; make room, or name a folder on a larger disk in HF_HOME, and try again")
    network = (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError, *connection_errors())
    if isinstance(error, OSError) and not isinstance(error, network):
        return SuiteError(
            f"the files of {repo} cannot be written: {error.strerror or cause(error)} ({error.filename or 'no file'}). "
            "See that HF_HOME and SUITE_CACHE_DIR name folders that the suite may write to"
        )
    if not isinstance(error, network):
        raise error
    return HubUnreachable(f"the Hub cannot be reached ({cause(error)}); check the network, the proxy and HF_ENDPOINT")


def connection_errors() -> tuple[type[Exception], ...]:
    """What the Hub's client raises for a connection that failed."""
    import httpx2

    return (httpx2.RequestError,)


def with_retries(ask: Callable[[], T], look: Callable[[], None] = lambda: None, *, broken: bool = False) -> T:
    """Asks again where the Hub says "too many requests" or fails; the client itself does not.

    `look` is called while we wait, and may raise to end it. `broken`: also where the connection broke.
    """
    for attempt in range(ATTEMPTS):
        try:
            return ask()
        except Exception as error:
            status = status_of(error)
            lost = broken and isinstance(error, (ConnectionError, TimeoutError, *connection_errors()))
            if attempt + 1 == ATTEMPTS or not (status == 429 or status >= 500 or lost):
                raise
            headers = getattr(getattr(error, "response", None), "headers", {})
            pause(max(BACKOFF * 2**attempt, seconds_to_wait(headers)), look)
    raise AssertionError("unreachable")


def model_info(api: Any, repo: str, revision: str = "", look: Callable[[], None] = lambda: None) -> Any:
    """The Hub client's `ModelInfo` with its files, and with a commit that can be a folder's name.

    `api` is an `HfApi`; `look` as in `with_retries`. Raises `SuiteError` and what `look` raises.
    """

    def ask() -> Any:
        return api.model_info(repo, revision=revision or None, files_metadata=True, timeout=ANSWER_WITHIN)

    try:
        info = with_retries(ask, look)
    except UnicodeEncodeError:
        raise HubRefused("HF_TOKEN holds characters that no token has; correct it, or remove it") from None
    except json.JSONDecodeError as error:
        raise HubUnreachable(
            f"what answered for {repo} is not a Hub; check HF_ENDPOINT, the proxy, and whether the "
            "network wants you to sign in"
        ) from error
    except Exception as error:
        if not isinstance(error, (TypeError, LookupError, AttributeError)):
            raise as_suite_error(error, repo) from error
        raise _unreadable(repo) from error
    if not re.fullmatch("[0-9a-f]{40}", str(info.sha)):
        raise _unreadable(repo)
    return info


def _unreadable(repo: str) -> WeightsCorrupt:
    return WeightsCorrupt(
        f"what the Hub says of {repo} cannot be read: its card, or a Hub's answer, is malformed. Tell its owner, or "
        "choose another checkpoint"
    )


def status_of(error: BaseException) -> int:
    """The HTTP status that the Hub answered with; 0 where it did not answer."""
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _anonymous() -> bool:
    """Whether we ask without a token. A 401 then says "Invalid username or password", though nobody gave any."""
    from huggingface_hub import get_token

    return not get_token()


def server_message(error: BaseException) -> str:
    """The Hub's own words, as one sentence, without our token and without addresses other than the Hub's own."""
    from huggingface_hub import constants, get_token

    said = getattr(error, "server_message", None) or str(error)
    line = next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)
    line = re.sub(r"\s*\(Request ID:[^)]*\)", "", line)
    line = without_addresses(line, but=constants.ENDPOINT)
    if token := get_token():
        line = line.replace(token, "the token")
    line = "".join(character for character in line if character.isprintable())
    if len(line) > LONGEST_MESSAGE:
        line = line[:LONGEST_MESSAGE] + "…"
    return line if line.endswith((".", "!", "?", "…")) else line + "."


def cause(error: BaseException | str) -> str:
    """What broke, without an address: it may hold credentials."""
    words = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return without_addresses(words)[:200] or type(error).__name__


def without_addresses(words: str, but: str = "") -> str:
    """Addresses can hold credentials, or a signature that opens a file. Those in `but` stay, up to a `?`."""

    def shown(found: re.Match[str]) -> str:
        return found[0].partition("?")[0] if but and found[0].startswith(f"{but}/") else "the address"

    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+", shown, words)
