"""Trained checkpoints on a Hub: which of their files go there and come back, and how both are asked for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from shared.errors import InvalidInput, SuiteError, UnknownCheckpoint
from shared.fetching.hub_errors import ATTEMPTS, BACKOFF, HubRefused, as_suite_error, connection_errors, with_retries
from shared.fetching.transfer import pause
from shared.settings import Settings

T = TypeVar("T")

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

PUBLISHED_FILES = (
    *("README.md", "recipe.yaml", "training.json", "evaluation.json", "suite_adapter.json", "loss.png"),
    *("adapter_config.json", "adapter_model.safetensors"),
    *("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"),
    "model-?????-of-?????.safetensors",
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("source.spm", "target.spm", "preprocessor_config.json"),
)
"""Patterns of the files that are published, and read back. Nothing else is: no optimizer, no logs, no pickles."""


def is_published(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in PUBLISHED_FILES)


def is_repository(name: str) -> bool:
    return bool(REPO.fullmatch(name))


def api_of(token: str | None) -> Any:
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


def asked(repo: str, ask: Callable[[], T], token: str | None = None, *, writing: bool = True) -> T:
    """Asks, and asks again where the Hub is busy or the connection breaks. Raises `SuiteError` for what is refused.

    `token` appears in no error.
    """
    try:
        for attempt in range(ATTEMPTS - 1):
            try:
                return with_retries(ask)
            except (ConnectionError, TimeoutError, *connection_errors()):
                pause(BACKOFF * 2**attempt, lambda: None)
        return with_retries(ask)
    except Exception as error:
        raise _without(token, _in_words(error, repo, writing)) from None  # the cause's text can hold the token


def _in_words(error: Exception, repo: str, writing: bool) -> SuiteError:
    from huggingface_hub.errors import GatedRepoError

    status = int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
    said = " ".join(str(getattr(error, "server_message", "") or error).split())[:300].rstrip(".")
    if writing and status == 401:
        return HubRefused(f"the Hub does not accept the token it was given ({said}). Make a new one that may write")
    if writing and status == 403 and not isinstance(error, GatedRepoError):
        return HubRefused(
            f"the token may not write to {repo} ({said}). Use one with the right to write to "
            f"{repo.partition('/')[0]}'s repositories, or name another repository",
            field="repo",
        )
    return as_suite_error(error, repo)


def _without(token: str | None, error: SuiteError) -> SuiteError:
    if token and token in error.message:
        error.message = error.message.replace(token, "the token")
        error.args = (error.message,)
    return error


def download(api: Any, repo: str, revision: str, names: Iterable[str], folder: Path) -> Path:
    """Those files of a repository at a revision, in `folder`. Raises `SuiteError`."""
    wanted = sorted(names)

    def ask() -> None:
        api.snapshot_download(repo, revision=revision, local_dir=folder, allow_patterns=wanted)
        # The client is content with whatever lies in the folder when it cannot ask the Hub for the list of files.
        if missing := [name for name in wanted if not (folder / name).is_file()]:
            raise ConnectionError(f"{missing[0]} did not arrive")

    asked(repo, ask, api.token if isinstance(api.token, str) else None, writing=False)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    return folder


def pull(repo: str, settings: Settings) -> Path:
    """Folder of this machine with a trained checkpoint from the Hub, fetched the first time. Raises `SuiteError`."""
    from huggingface_hub import HfApi, constants

    if not is_repository(repo):
        raise InvalidInput(f"{repo!r} is not of the form user/name", field="checkpoint")
    api = HfApi(endpoint=constants.ENDPOINT)
    info = asked(repo, lambda: api.model_info(repo), writing=False)
    names = {file.rfilename for file in info.siblings or []}
    if "training.json" not in names:
        raise UnknownCheckpoint(
            f"{repo} was not published by this suite's recipes: it has no training.json, so what it was trained for "
            "is not known",
            field="checkpoint",
        )
    final = settings.cache_dir / "pulled" / f"{repo.replace('/', '--')}@{info.sha}"
    building = final.with_name(f".{final.name}.part")  # a broken download goes on from there
    building.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(building.with_suffix(".lock")):
        if not final.is_dir():
            building.mkdir(exist_ok=True)
            download(api, repo, str(info.sha), filter(is_published, names), building)
            building.rename(final)
    return final
