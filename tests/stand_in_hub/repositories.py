"""Repositories as the Hub keeps them: files, commits and branches, in memory. Every id comes from the content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from tests.stand_in_hub import refusals

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
"""Kinds of repository by their name in addresses."""

LFS_SUFFIXES = (
    *(".7z", ".arrow", ".bin", ".bz2", ".ckpt", ".ftz", ".gguf", ".gz", ".h5", ".joblib", ".mlmodel", ".model"),
    *(".msgpack", ".npy", ".npz", ".onnx", ".ot", ".parquet", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".rar"),
    *(".safetensors", ".tar", ".tflite", ".tgz", ".wasm", ".xz", ".zip", ".zst"),
)
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
"""The file every new repository begins with."""

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class File:
    data: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git itself keeps of a large file."""
        spec = "version https://git-lfs.github.com/spec/v1"
        return f"{spec}\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def blob_id(self) -> str:
        """git's SHA-1 of what git keeps: the file, or the pointer to it."""
        kept = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(kept) + kept).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id


@dataclass(frozen=True)
class Commit:
    files: Mapping[str, File]
    title: str
    description: str
    author: str
    parent: Commit | None

    @cached_property
    def id(self) -> str:
        parts = [self.parent.id if self.parent else "", self.title, self.description, self.author]
        parts += [[path, file.blob_id] for path, file in sorted(self.files.items())]
        return hashlib.sha1(json.dumps(parts).encode()).hexdigest()

    @cached_property
    def date(self) -> str:
        """One second after its parent, so that the same commits have the same dates."""
        return (FIRST_DAY + timedelta(seconds=len(self.history()))).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def history(self) -> list[Commit]:
        """This commit and those before it, newest first."""
        found, commit = [], self
        while commit:
            found.append(commit)
            commit = commit.parent
        return found

    def last_changed(self, path: str) -> Commit:
        """The commit that gave a file, or something in a folder, its present content."""

        def content(commit: Commit) -> dict[str, str]:
            inside = {p: f.blob_id for p, f in commit.files.items() if p.startswith(f"{path}/")}
            return {path: commit.files[path].blob_id} if path in commit.files else inside

        commit = self
        while commit.parent and content(commit.parent) == content(self):
            commit = commit.parent
        return commit

    def folders(self) -> dict[str, str]:
        """Every folder and its id."""
        found: dict[str, list[list[str]]] = {}
        for path, file in sorted(self.files.items()):
            parts = path.split("/")
            for depth in range(1, len(parts)):
                found.setdefault("/".join(parts[:depth]), []).append([path, file.blob_id])
        return {folder: hashlib.sha1(json.dumps(inside).encode()).hexdigest() for folder, inside in found.items()}


@dataclass
class Space:
    """What the Hub knows of a Space beside its files. Tests may set `stage`."""

    sdk: str = "gradio"
    stage: str = "RUNNING"
    hardware: str = "cpu-basic"
    sleep_time: int | None = None
    host: str = ""
    """Where it is served."""
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Repository:
    id: str
    kind: str
    """"model", "dataset" or "space"."""
    private: bool = False
    gated: bool | str = False
    """False, "auto" or "manual"."""
    disabled: bool = False
    readers: set[str] = field(default_factory=set)
    """Users let in besides those of the namespace."""
    space: Space = field(default_factory=Space)
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0] if "/" in self.id else ""

    @property
    def place(self) -> str:
        """The repository's part of web addresses."""
        return self.id if self.kind == "model" else f"{self.kind}s/{self.id}"

    def find(self, revision: str) -> Commit:
        """A branch, a tag, a commit's full id or the only commit whose id begins so (at least 7 hex digits)."""
        if found := self.branches.get(revision) or self.tags.get(revision):
            return found
        tips = [*self.branches.values(), *self.tags.values()]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            found = {c.id: c for tip in tips for c in tip.history() if c.id.startswith(revision)}
            if len(found) == 1:
                return next(iter(found.values()))
        raise refusals.revision_not_found(revision)

    def commit(
        self, files: Mapping[str, File], title: str, author: str, branch: str = "main", description: str = ""
    ) -> Commit:
        """Makes `files` the whole content of the branch."""
        parent = self.branches.get(branch) or self.branches.get("main")
        self.branches[branch] = Commit(dict(files), title, description, author, parent)
        return self.branches[branch]
