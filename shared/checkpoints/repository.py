"""Which files of a repository a checkpoint needs, and what makes one unfit to be loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from shared.errors import SuiteError, UnknownCheckpoint, WeightsCorrupt

SMALL = re.compile(
    r"(config|generation_config|preprocessor_config|processor_config|tokenizer|tokenizer_config|special_tokens_map|"
    r"added_tokens|vocab|chat_template|adapter_config)\.json|merges\.txt|vocab\.txt|[A-Za-z0-9_][A-Za-z0-9_.-]*\."
    r"(model|spm)|chat_template\.jinja"
)
"""Configuration and tokenizer, by the names that transformers gives them. No `/`: nothing in a sub-folder."""
TOKENIZER = re.compile(r"tokenizer\.json|vocab\.(json|txt)|[A-Za-z0-9_][A-Za-z0-9_.-]*\.(model|spm)")
"""One of these at least holds the vocabulary of a model of text."""

SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"
BESIDE_AN_ADAPTER = ("suite_adapter.json", "evaluation.json", "README.md")
"""Files that describe an adapter: our metadata, its evaluation, its card."""
SHARD = re.compile(r"(model|pytorch_model)-([0-9]{1,6})-of-([0-9]{1,6})\.(safetensors|bin)")
LARGEST_SMALL = 50 * 2**20


@dataclass(frozen=True)
class WantedFile:
    """A file of the repository: its size in bytes, and the hash the Hub states."""

    name: str
    size: int
    digest: str = ""
    """SHA-256 of a large file (LFS), git's SHA-1 of a small one."""

    def is_right(self, file: BufferedReader | BytesIO) -> bool:
        """Whether this is its content."""
        if len(self.digest) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.digest
        content = file.read(self.size + 1)
        header = b"blob %d\0" % len(content)
        return hashlib.sha1(header + content, usedforsecurity=False).hexdigest() == self.digest


def as_wanted(sibling: Any) -> WantedFile:
    """From the Hub client's `RepoSibling`."""
    if isinstance(sibling, WantedFile):
        return sibling
    lfs = sibling.lfs
    return WantedFile(sibling.rfilename, int(sibling.size or 0), (lfs.sha256 if lfs else sibling.blob_id) or "")


def stated_files(
    siblings: Iterable[Any], repo: str, needed_files: Callable[[Iterable[Any], str], list[WantedFile]]
) -> list[WantedFile]:
    """What `needed_files` (of a `Kind`) selects. Also raises `WeightsCorrupt` where the Hub states no hash for one."""
    wanted = needed_files(siblings, repo)
    for file in wanted:
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", file.digest):
            raise WeightsCorrupt(
                f"the Hub states no hash for {file.name} of {repo}, so what it sends could not be checked; nothing was "
                "fetched. See that HF_ENDPOINT names a Hub"
            )
    return wanted


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
        raise UnknownCheckpoint(
            f"{repo} has no config.json, so it is not a transformers checkpoint; choose another", field="model"
        )
    if files["config.json"].size > LARGEST_SMALL:
        raise WeightsCorrupt(f"the config.json of {repo} is far too large for one; tell its owner, or choose another")
    small = [file for file in files.values() if SMALL.fullmatch(file.name) and file.size <= LARGEST_SMALL]
    return sorted([*small, *weights], key=lambda file: (file.name in {w.name for w in weights}, file.size))


def wanted_adapter_files(siblings: Iterable[Any], repo: str) -> list[WantedFile]:
    """The files of a peft adapter, the smallest first. Raises `UnknownCheckpoint` where it is none, or a pickle."""
    files = {file.name: file for file in map(as_wanted, siblings)}
    for name in files:
        refuse_path_tricks(name, repo)
    if ADAPTER_CONFIG not in files:
        raise UnknownCheckpoint(
            f"{repo} has no {ADAPTER_CONFIG}, so it is not an adapter; choose another", field="model"
        )
    if ADAPTER_WEIGHTS not in files:
        pickle = ADAPTER_PICKLE in files
        why = (
            f"its weights are a pickle ({ADAPTER_PICKLE}), which can run code while it is read"
            if pickle
            else "none are there"
        )
        raise UnknownCheckpoint(f"{repo} has no {ADAPTER_WEIGHTS}: {why}; choose another adapter", field="model")
    small = [files[name] for name in (ADAPTER_CONFIG, *BESIDE_AN_ADAPTER) if name in files]
    small = [file for file in small if file.size <= LARGEST_SMALL]
    return [*sorted(small, key=lambda file: file.size), files[ADAPTER_WEIGHTS]]


def _weights(files: dict[str, WantedFile], repo: str) -> list[WantedFile]:
    for single, index, suffix in ((SAFETENSORS, SAFETENSORS_INDEX, "safetensors"), (BIN, BIN_INDEX, "bin")):
        if single in files:
            return [files[single]]
        if index in files:
            series: dict[int, list[WantedFile]] = {}
            for name, file in files.items():
                if (part := SHARD.fullmatch(name)) and part[4] == suffix:
                    series.setdefault(int(part[3]), []).append(file)
            whole = [shards for total, shards in series.items() if len(shards) == total]
            if not whole:
                total = max(series, default=0)
                raise WeightsCorrupt(
                    f"{repo} is not whole: {index} is there, and {len(series.get(total, []))} of its "
                    f"{total or 'unknown number of'} shards. Tell its owner, or choose another checkpoint"
                )
            return [files[index], *(file for shards in whole for file in shards)]
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


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether some file holds a vocabulary."""
    return any(TOKENIZER.fullmatch(name) for name in names)


def has_whole_tokenizer(names: Collection[str]) -> bool:
    """Whether what belongs to the vocabulary is there too: the merges of byte pairs, both of Marian's sides."""
    if "tokenizer.json" in names:
        return True
    if any(name.endswith(".spm") for name in names):
        return {"source.spm", "target.spm", "vocab.json"} <= set(names)
    if "vocab.json" in names:
        return any(name == "merges.txt" or name.endswith(".model") for name in names)
    return has_tokenizer(names)


def refuse_remote_code(config: Path, repo: str) -> None:
    """Raises `SuiteError` for a configuration that names code to be fetched and run; such code is never run."""
    refuse_named_code(read_config(config, repo), config.name, repo)


def refuse_named_code(content: dict[str, Any], name: str, repo: str) -> None:
    """The same of a configuration that was read: Python files (`auto_map`) and compute kernels of a repository."""
    found = _named_code(content)
    if found:
        raise SuiteError(
            f"{repo} was refused: its {name} asks to run code from a repository ({found}), which this suite never "
            "does. Choose a checkpoint of an architecture that transformers has",
            field="model",
        )


def _named_code(content: dict[str, Any]) -> str:
    """How code is named anywhere in a configuration, "" where it is not."""
    inside: list[Any] = [content]
    while inside:
        part = inside.pop()
        if isinstance(part, list):
            inside += part
        elif isinstance(part, dict):
            if part.get("auto_map"):
                return "auto_map, as with trust_remote_code"
            for key, value in part.items():
                # transformers takes `user/name` here for a repository of kernels, to be fetched and run.
                if key.endswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
                    return f"{key}, a kernel"
            inside += part.values()
    return ""


def read_config(config: Path, repo: str) -> dict[str, Any]:
    """Raises `WeightsCorrupt` where it is no JSON object."""
    try:
        return parsed_config(config.read_bytes(), config.name, repo)
    except OSError as error:
        raise WeightsCorrupt(f"{config.name} of {repo} is not readable: {error.strerror}; fetch it again") from None


def parsed_config(content: bytes, name: str, repo: str) -> dict[str, Any]:
    """Raises as `read_config` does."""
    way_out = "tell its owner, or choose another checkpoint"
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise WeightsCorrupt(f"{name} of {repo} is damaged: it is no JSON; {way_out}") from None
    if not isinstance(found, dict):
        raise WeightsCorrupt(f"{name} of {repo} is damaged: it is not a JSON object; {way_out}")
    return found


def refuse_unknown_architecture(name: str, model_type: Any) -> None:
    """Raises `SuiteError` where the installed transformers has no architecture of this name."""
    import transformers

    if not isinstance(model_type, str) or model_type not in transformers.CONFIG_MAPPING:
        raise SuiteError(
            f"{name} is of the architecture {str(model_type)[:80]!r}, which the installed transformers "
            f"({transformers.__version__}) does not know; choose another checkpoint",
            field="model",
        )
