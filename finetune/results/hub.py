"""Trained checkpoints on a Hub: which of their files are uploaded and downloaded, and how."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from shared.checkpoints.adapters import is_repository
from shared.errors import InvalidInput, UnknownCheckpoint
from shared.fetching.hub_writing import request
from shared.settings import Settings

T = TypeVar("T")

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


def download(api: Any, repo: str, revision: str, names: Iterable[str], folder: Path) -> Path:
    """Those files of a repository at a revision, in `folder`. Raises `SuiteError`."""
    wanted = sorted(names)

    def ask() -> None:
        api.snapshot_download(repo, revision=revision, local_dir=folder, allow_patterns=wanted)
        # The client is content with whatever lies in the folder when it cannot ask the Hub for the list of files.
        if missing := [name for name in wanted if not (folder / name).is_file()]:
            raise ConnectionError(f"{missing[0]} did not arrive")

    request(api, repo, ask, writing=False)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    return folder


def pull(repo: str, settings: Settings) -> Path:
    """Folder of this machine with a trained checkpoint from the Hub, fetched the first time. Raises `SuiteError`."""
    from huggingface_hub import HfApi, constants

    if not is_repository(repo):
        raise InvalidInput(f"{repo!r} is not of the form user/name", field="checkpoint")
    api = HfApi(endpoint=constants.ENDPOINT)
    info = request(api, repo, lambda: api.model_info(repo), writing=False)
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
