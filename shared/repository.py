"""Which files of a repository a checkpoint needs, and what makes one unfit to be loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from shared.errors import SuiteError, UnknownCheckpoint, WeightsCorrupt

SMALL = re.compile(
    r"(config|generation_config|preprocessor_config|processor_config|tokenizer|tokenizer_config|special_tokens_map|"
    r"added_tokens|vocab|chat_template|adapter_config)\.json|merges\.txt|vocab\.txt|.*\.(model|spm)|chat_template\.jinja"
)
"""Configuration and tokenizer, by the names that transformers gives them."""

SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
SHARD = re.compile(r"(model|pytorch_model)-\d+-of-(\d+)\.(safetensors|bin)")
LARGEST_SMALL = 50 * 2**20


@dataclass(frozen=True)
class WantedFile:
    """A file of the repository: its size in bytes, and the hash the Hub states."""

    name: str
    size: int
    digest: str = ""
    """SHA-256 of a large file (LFS), git's SHA-1 of a small one."""

    def digest_of(self, path: Path) -> str:
        """The same kind of hash of a file on disk."""
        if len(self.digest) == 64:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        if len(self.digest) == 40:
            content = path.read_bytes()
            return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        return self.digest


def as_wanted(sibling: Any) -> WantedFile:
    """From the Hub client's `RepoSibling`."""
    if isinstance(sibling, WantedFile):
        return sibling
    lfs = sibling.lfs
    return WantedFile(sibling.rfilename, int(sibling.size or 0), (lfs.sha256 if lfs else sibling.blob_id) or "")


def wanted_files(siblings: Iterable[Any], repo: str) -> list[WantedFile]:
    """The files that a checkpoint needs, the smallest first: configuration, tokenizer, and the weights once.

    safetensors before PyTorch's pickle; never both, and never `.onnx`, `.h5`, `.msgpack` or anything in a sub-folder.
    Raises `UnknownCheckpoint` for a repository without weights we read, `WeightsCorrupt` where shards are missing.
    """
    files = {file.name: file for file in map(as_wanted, siblings)}
    for name in files:
        refuse_path_tricks(name, repo)
    weights = _weights(files, repo)
    if "config.json" not in files:
        raise UnknownCheckpoint(f"{repo} has no config.json, so it is not a transformers checkpoint", field="model")
    small = [file for file in files.values() if SMALL.fullmatch(file.name) and file.size <= LARGEST_SMALL]
    return sorted([*small, *weights], key=lambda file: (file.name in {w.name for w in weights}, file.size))


def _weights(files: dict[str, WantedFile], repo: str) -> list[WantedFile]:
    for single, index, suffix in ((SAFETENSORS, SAFETENSORS_INDEX, "safetensors"), (BIN, BIN_INDEX, "bin")):
        if single in files:
            return [files[single]]
        if index in files:
            shards = [file for name, file in files.items() if (m := SHARD.fullmatch(name)) and m[3] == suffix]
            total = int(SHARD.fullmatch(shards[0].name)[2]) if shards else 0  # pyright: ignore[reportOptionalSubscript]
            if not shards or len(shards) != total:
                raise WeightsCorrupt(
                    f"{repo} is not whole: {index} is there, and {len(shards)} of its {total or 'unknown number of'} "
                    "shards. Tell its owner, or name another checkpoint"
                )
            return [files[index], *shards]
    others = sorted(
        {PurePosixPath(name).suffix for name in files} & {".h5", ".msgpack", ".onnx", ".gguf", ".pt", ".pkl", ".ckpt"}
    )
    found = f" (it has {', '.join(others)})" if others else ""
    raise UnknownCheckpoint(
        f"{repo} has neither {SAFETENSORS} nor {BIN}{found}; other formats are not read. Convert it, or name another",
        field="model",
    )


def refuse_path_tricks(name: str, repo: str) -> None:
    """Raises `SuiteError` for a file name that could lead out of its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise SuiteError(f"{repo} was refused: it names a file outside its folder ({name!r})", field="model")


def refuse_remote_code(config: Path, repo: str) -> None:
    """Raises `SuiteError` for a configuration that names Python code in its repository; such code is never run."""
    content = read_config(config, repo)
    if content.get("auto_map"):
        raise SuiteError(
            f"{repo} was refused: its {config.name} asks to run Python code from the repository (trust_remote_code), "
            "which this suite never does. Choose a checkpoint of an architecture that transformers has",
            field="model",
        )


def read_config(config: Path, repo: str) -> dict[str, Any]:
    """Raises `WeightsCorrupt` where it is no JSON object."""
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsCorrupt(f"{config.name} of {repo} is not readable: {error}") from None
    if not isinstance(content, dict):
        raise WeightsCorrupt(f"{config.name} of {repo} is not a JSON object")
    return content
