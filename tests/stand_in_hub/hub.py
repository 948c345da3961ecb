"""`StandInHub`: who may do what with which repository, and where the two servers are."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import yaml

from tests.stand_in_hub import refusals
from tests.stand_in_hub.faults import Faults
from tests.stand_in_hub.repositories import GITATTRIBUTES, LFS_SUFFIXES, File, Repository, Space
from tests.stand_in_hub.wire import Listener, Request


@dataclass(frozen=True)
class Token:
    user: str
    role: str = "write"
    """"write" or "read"."""
    organizations: tuple[str, ...] = ()

    @property
    def namespaces(self) -> tuple[str, ...]:
        return (self.user, *self.organizations)


class StandInHub:
    """Serves from its making until `close`. Files larger than `lfs_from` bytes are large files whatever their name."""

    def __init__(self, lfs_from: int = 10_000_000) -> None:
        from tests.stand_in_hub import routes

        self.lfs_from = lfs_from
        self.tokens = {"hf_writer": Token("user"), "hf_reader": Token("user", "read"), "hf_other": Token("other")}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.storage: dict[str, bytes] = {}
        """Large files by their SHA-256."""
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self.faults = Faults(self._listen)
        self._pages = Listener(lambda request: routes.respond(self, request), self.faults, self.requests)
        self._storage = Listener(lambda request: routes.respond_storage(self, request), self.faults, self.requests)
        self.endpoint = self._pages.address
        self.storage_address = self._storage.address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: object, *_: object) -> None:
        self.close()
        if exception_type is None and (failures := self._pages.failures + self._storage.failures):
            raise RuntimeError("the stand-in hub is broken:\n" + "\n".join(failures))

    def close(self) -> None:
        """All threads have ended on return, also those of requests that are being held, which get no answer."""
        self._pages.close()
        self._storage.close()

    def _listen(self, wanted: bool) -> None:
        self._pages.listen(wanted)
        self._storage.listen(wanted)

    # -- for tests -------------------------------------------------------------------------------------------------

    def add(
        self,
        repo_id: str,
        files: str | Path | Mapping[str, bytes | str],
        *,
        private: bool = False,
        gated: bool | str = False,
        card: str | Mapping[str, Any] | None = None,
        repo_type: str = "model",
        lfs: Iterable[str] = (),
        revision: str = "main",
        sdk: str = "gradio",
    ) -> str:
        """Make these files the whole content of a branch, and return the commit's id.

        files: a folder, or paths and contents. card: README.md, or its metadata. gated: True, "auto" or "manual".
        lfs: patterns of paths to keep as large files; others are by suffix and size, as in uploads.
        """
        if isinstance(files, str | Path):
            folder = Path(files)
            files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        contents = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
        if card is not None:
            text = card if isinstance(card, str) else f"---\n{yaml.safe_dump(dict(card), sort_keys=False)}---\n"
            contents["README.md"] = text.encode()
        patterns = list(lfs)
        with self.lock:
            made = {
                path: File(data, self.is_large(path, len(data)) or any(fnmatch(path, p) for p in patterns))
                for path, data in contents.items()
            }
            self.storage |= {file.sha256: file.data for file in made.values() if file.lfs}
            repository = self.repositories.setdefault((repo_type, repo_id), Repository(repo_id, repo_type))
            repository.private, repository.gated = private, "auto" if gated is True else gated
            repository.space.sdk = sdk
            return repository.commit(made, "Add files", repository.namespace or "hub", revision).id

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        with self.lock:
            commit = self.repository(repo_id, repo_type).find(revision)
            return {path: file.data for path, file in sorted(commit.files.items())}

    def repository(self, repo_id: str, repo_type: str = "model") -> Repository:
        """To look at or to change: `disabled`, `space.stage`, `space.variables` …"""
        return self.repositories[repo_type, repo_id]

    def grant(self, repo_id: str, user: str, repo_type: str = "model") -> None:
        """Let a user into a private or gated repository."""
        self.repository(repo_id, repo_type).readers.add(user)

    def sent(self, path_contains: str = "") -> int:
        """Bytes of bodies that went out for these paths, so far."""
        return sum(request.sent for request in list(self.requests) if path_contains in request.path)

    # -- for the routes --------------------------------------------------------------------------------------------

    def is_large(self, path: str, size: int) -> bool:
        return size > 0 and (path.endswith(LFS_SUFFIXES) or size > self.lfs_from)

    def who(self, request: Request) -> Token | None:
        """None for the anonymous."""
        given = request.headers.get("authorization")
        if given is None:
            return None
        token = self.tokens.get(given.removeprefix("Bearer "))
        if token is None:
            raise refusals.wrong_token()
        return token

    def may_see(self, repository: Repository, token: Token | None) -> bool:
        return not repository.private or self._is_let_in(repository, token)

    def to_see(self, kind: str, repo_id: str, token: Token | None) -> Repository:
        repository = self.repositories.get((kind, repo_id))
        if repository is None or not self.may_see(repository, token):
            raise refusals.repository_not_found(anonymous=token is None)
        if repository.disabled:
            raise refusals.disabled()
        return repository

    def to_fetch(self, kind: str, repo_id: str, token: Token | None) -> Repository:
        """What a gated repository holds may be listed by everybody, and fetched by those let in."""
        repository = self.to_see(kind, repo_id, token)
        if repository.gated and not self._is_let_in(repository, token):
            raise refusals.gated(kind, repo_id, token is None, f"{self.endpoint}/{repository.place}")
        return repository

    def to_write(self, kind: str, repo_id: str, token: Token | None) -> tuple[Repository, Token]:
        repository = self.to_see(kind, repo_id, token)
        if token is None:
            raise refusals.log_in_first()
        if token.role != "write":
            raise refusals.read_only_token()
        if repository.namespace not in token.namespaces:
            raise refusals.not_your_repository()
        return repository, token

    def create(self, kind: str, repo_id: str, token: Token | None, space: Space, private: bool) -> Repository:
        """With the files that a new repository has on the Hub."""
        if token is None:
            raise refusals.log_in_first()
        namespace = repo_id.split("/")[0]
        if token.role != "write" or namespace not in token.namespaces:
            raise refusals.not_your_namespace(kind, namespace)
        if found := self.repositories.get((kind, repo_id)):
            raise refusals.exists_already(
                f"You already created this {kind} repo: {repo_id}", f"{self.endpoint}/{found.place}"
            )
        files = {".gitattributes": File(GITATTRIBUTES.encode(), lfs=False)}
        if kind == "space":
            card = f"---\ntitle: {repo_id.split('/')[-1]}\nsdk: {space.sdk}\napp_file: app.py\npinned: false\n---\n"
            files["README.md"] = File(card.encode(), lfs=False)
        repository = Repository(repo_id, kind, private=private, space=space)
        repository.commit(files, "initial commit", token.user)
        self.repositories[kind, repo_id] = repository
        return repository

    def storage_url(self, sha256: str, name: str = "") -> str:
        """An address that lets whoever has it fetch or bring this large file, as the Hub's signed addresses do."""
        signature = hmac.new(b"of this hub", sha256.encode(), hashlib.sha256).hexdigest()
        return f"{self.storage_address}/storage/{sha256}/{quote(name)}?Signature={signature}"

    @staticmethod
    def _is_let_in(repository: Repository, token: Token | None) -> bool:
        if token is None:
            return False
        return repository.namespace in token.namespaces or token.user in repository.readers
