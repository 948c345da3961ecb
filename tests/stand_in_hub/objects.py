"""Contents of files on their way out and in: the resolve addresses, and the storage of large files (LFS)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.stand_in_hub import refusals
from tests.stand_in_hub.refusals import Refusal
from tests.stand_in_hub.wire import Answer, Request, content

if TYPE_CHECKING:
    from tests.stand_in_hub.hub import StandInHub


def resolve(hub: StandInHub, request: Request, kind: str, repo_id: str, revision: str, path: str) -> Answer:
    """A regular file, or the way to a large one, with its size and SHA-256."""
    commit = hub.to_fetch(kind, repo_id, hub.who(request)).find(revision)
    if path not in commit.files:
        raise refusals.entry_not_found(commit=commit.id)
    file, name = commit.files[path], path.split("/")[-1]
    headers = {"X-Repo-Commit": commit.id, "ETag": f'"{file.etag}"'}
    headers["Content-Disposition"] = f"inline; filename*=UTF-8''{quote(name)}; filename=\"{quote(name)}\";"
    if not file.lfs:
        return content(file.data, headers, request.range)
    headers |= {"X-Linked-Size": str(len(file.data)), "X-Linked-ETag": f'"{file.sha256}"', "Accept-Ranges": "bytes"}
    url = hub.storage_url(file.sha256, name)
    return Answer(302, f"Found. Redirecting to {url}".encode(), {**headers, "Location": url})


def batch(hub: StandInHub, request: Request, kind: str, repo_id: str) -> Answer:
    """Where to bring the large files that are not here yet."""
    repository, _ = hub.to_write(kind, repo_id, hub.who(request))
    objects = []
    for wanted in request.json["objects"]:
        answered = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in hub.storage:
            verify = f"{hub.endpoint}/{repository.place}.git/info/lfs/objects/verify"
            answered["actions"] = {"upload": {"href": hub.storage_url(wanted["oid"])}, "verify": {"href": verify}}
        objects.append(answered)
    return Answer.of({"transfer": "basic", "objects": objects})


def verify(hub: StandInHub, request: Request, kind: str, repo_id: str) -> Answer:
    hub.to_write(kind, repo_id, hub.who(request))
    if len(hub.storage.get(request.json["oid"], b"")) != request.json["size"]:
        raise Refusal(404, "the large file did not arrive")
    return Answer.of({})


def fetch(hub: StandInHub, request: Request, sha256: str, name: str) -> Answer:
    _check_address(hub, request, sha256, name)
    if sha256 not in hub.storage:
        raise Refusal(404, "The specified key does not exist.")
    return content(hub.storage[sha256], {"ETag": f'"{sha256}"'}, request.range)


def bring(hub: StandInHub, request: Request, sha256: str) -> Answer:
    _check_address(hub, request, sha256, "")
    if hashlib.sha256(request.body).hexdigest() != sha256:
        raise Refusal(400, "The SHA-256 you specified did not match what we received.")
    hub.storage[sha256] = request.body
    return Answer(200, b"", {"ETag": f'"{sha256}"'})


def _check_address(hub: StandInHub, request: Request, sha256: str, name: str) -> None:
    signature = request.query.get("Signature", [""])[0]
    if not hub.storage_url(sha256, name).endswith(f"?Signature={signature}"):
        raise Refusal(403, "Request has expired or its signature is wrong.")
    if "authorization" in request.headers:
        raise Refusal(400, "Only one auth mechanism allowed: a token must not leave the Hub.")
