"""Repositories of ours on the Hub: requests that may write, and what the Hub refuses, in words about writing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from shared.errors import SuiteError
from shared.fetching.hub_errors import HubRefused, as_suite_error, server_message, status_of, with_retries

T = TypeVar("T")


def client(token: str | None = None) -> Any:
    """The client for the configured Hub. Raises `HubRefused` where there is no token, or none that can be one."""
    from huggingface_hub import HfApi, constants, get_token

    used = token or get_token()
    if not used:
        raise HubRefused(
            "there is no token for the Hub: make one that may write on the Hub's page of access tokens, then run "
            "`hf auth login` or set HF_TOKEN"
        )
    if not re.fullmatch(r"[!-~]+", used):
        raise HubRefused("the token for the Hub holds characters that no token has; copy it anew", field="token")
    return HfApi(endpoint=constants.ENDPOINT, token=used)


def request(api: Any, repo: str, ask: Callable[[], T], *, writing: bool = True, costs: str = "this") -> T:
    """Calls `ask`, again where the Hub is busy or the connection breaks. Raises `SuiteError` for what is refused.

    No error's text has the token of `api`. `costs` names what the Hub may want to be paid for.
    """
    try:
        return with_retries(ask, broken=True)
    except Exception as error:
        refused = _refused(error, repo, costs) if writing else as_suite_error(error, repo)
        if isinstance(api.token, str):
            refused.message = refused.message.replace(api.token, "the token")
            refused.args = (refused.message,)
        raise refused from None  # the cause's text can hold the token


def _refused(error: Exception, repo: str, costs: str) -> SuiteError:
    from huggingface_hub.errors import GatedRepoError

    status, said = status_of(error), server_message(error).rstrip(".")
    if status == 401:
        return HubRefused(f"the Hub does not accept the token it was given ({said}). Make a new one that may write")
    if status == 402:
        return HubRefused(f"the Hub wants {costs} paid for ({said})")
    if status == 403 and not isinstance(error, GatedRepoError):
        return HubRefused(
            f"the token may not write to {repo} ({said}). Use one with the right to write to "
            f"{repo.partition('/')[0]}'s repositories, or name another repository",
            field="repo",
        )
    return as_suite_error(error, repo)
