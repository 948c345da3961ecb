"""What changes repositories: create, commit, settings, Spaces."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from tests.stand_in_hub import refusals
from tests.stand_in_hub.descriptions import card_metadata, runtime
from tests.stand_in_hub.refusals import Refusal
from tests.stand_in_hub.repositories import File, Repository, Space
from tests.stand_in_hub.wire import Answer, Request

if TYPE_CHECKING:
    from tests.stand_in_hub.hub import StandInHub

NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)


def create(hub: StandInHub, request: Request) -> Answer:
    asked, token = request.json, hub.who(request)
    kind, name = asked.get("type", "model"), asked["name"]
    if not NAME.fullmatch(name):
        raise Refusal(400, f"Invalid repo name: {name}")
    if kind == "space" and not asked.get("sdk"):
        raise Refusal(400, '"sdk" is required for a Space')
    space = Space(asked.get("sdk", ""), "RUNNING", asked.get("hardware") or "cpu-basic", asked.get("sleepTimeSeconds"))
    for what, values in (("variables", space.variables), ("secrets", space.secrets)):
        values |= {item["key"]: item for item in asked.get(what) or []}
    owner = asked.get("organization") or (token.user if token else "")
    repository = hub.create(kind, f"{owner}/{name}", token, space, _private(asked))
    return Answer.of({"url": f"{hub.endpoint}/{repository.place}", "name": repository.id, "id": repository.id})


def delete(hub: StandInHub, request: Request) -> Answer:
    asked, token = request.json, hub.who(request)
    owner = asked.get("organization") or (token.user if token else "")
    repository, _ = hub.to_write(asked.get("type", "model"), f"{owner}/{asked['name']}", token)
    del hub.repositories[repository.kind, repository.id]
    return Answer.of({})


def validate_card(hub: StandInHub, request: Request) -> Answer:
    try:
        metadata = card_metadata(request.json["content"])
    except yaml.YAMLError as error:
        return Answer.of({"errors": [{"message": f"Invalid YAML: {error}"}], "warnings": []}, 400)
    warning = {"message": "empty or missing yaml metadata in repo card"}
    return Answer.of({"errors": [], "warnings": [] if metadata else [warning]})


def settings(hub: StandInHub, request: Request, kind: str, repo_id: str) -> Answer:
    repository, _ = hub.to_write(kind, repo_id, hub.who(request))
    asked = request.json
    if "visibility" in asked or "private" in asked:
        repository.private = _private(asked)
    repository.gated = asked.get("gated", repository.gated)
    return Answer.of({"private": repository.private, "gated": repository.gated})


def _private(asked: dict[str, Any]) -> bool:
    return asked.get("visibility") == "private" or bool(asked.get("private"))


# -- branches and tags -----------------------------------------------------------------------------------------------


def create_branch(hub: StandInHub, request: Request, kind: str, repo_id: str, branch: str) -> Answer:
    repository, _ = hub.to_write(kind, repo_id, hub.who(request))
    if branch in repository.branches:
        raise Refusal(409, f"Reference already exists: refs/heads/{branch}")
    repository.branches[branch] = repository.find(request.json.get("startingPoint", "main"))
    return Answer.of({}, 201)


def delete_branch(hub: StandInHub, request: Request, kind: str, repo_id: str, branch: str) -> Answer:
    repository, _ = hub.to_write(kind, repo_id, hub.who(request))
    if branch == "main" or branch not in repository.branches:
        raise Refusal(403 if branch == "main" else 404, f"Cannot delete refs/heads/{branch}")
    del repository.branches[branch]
    return Answer.of({})


def create_tag(hub: StandInHub, request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    repository, _ = hub.to_write(kind, repo_id, hub.who(request))
    tag = request.json["tag"]
    if tag in repository.tags:
        raise Refusal(409, f"Tag reference exists already: refs/tags/{tag}")
    repository.tags[tag] = repository.find(revision)
    return Answer.of({}, 201)


# -- commits ---------------------------------------------------------------------------------------------------------


def preupload(hub: StandInHub, request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    """Which files are to come as large ones, and what each path holds now, so that the unchanged are left out."""
    repository, _ = hub.to_write(kind, repo_id, hub.who(request))
    present = repository.find(revision).files
    files = []
    for asked in request.json["files"]:
        path, large = asked["path"], hub.is_large(asked["path"], asked["size"])
        oid = present[path].etag if path in present else None
        mode = "lfs" if large else "regular"
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Answer.of({"files": files})


def commit(hub: StandInHub, request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    repository, token = hub.to_write(kind, repo_id, hub.who(request))
    if "create_pr" in request.query:
        raise Refusal(400, "The stand-in hub has no pull requests.")
    if revision not in repository.branches:
        raise refusals.revision_not_found(revision)
    head = repository.branches[revision]
    header: dict[str, Any] = {}
    files = dict(head.files)
    for line in request.body.splitlines():
        operation = json.loads(line)
        if operation["key"] == "header":
            header = operation["value"]
        else:
            _apply(hub, operation["key"], operation["value"], files)
    if not head.id.startswith(header.get("parentCommit", "")):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    made = repository.commit(files, header["summary"], token.user, revision, header.get("description", ""))
    url = f"{hub.endpoint}/{repository.place}/commit/{made.id}"
    return Answer.of({"success": True, "commitOid": made.id, "commitUrl": url, "hookOutput": ""})


def _apply(hub: StandInHub, key: str, value: dict[str, Any], files: dict[str, File]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = File(base64.b64decode(value["content"]), lfs=False)
    elif key == "lfsFile":
        if value["oid"] not in hub.storage:
            raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {path}")
        files[path] = File(hub.storage[value["oid"]], lfs=True)
    elif key in ("deletedFile", "deletedFolder"):
        inside = f"{path.rstrip('/')}/"
        gone = [p for p in files if p == path or (key == "deletedFolder" and p.startswith(inside))]
        if not gone:
            raise refusals.entry_not_found(f"A file with this name doesn't exist: {path}")
        for p in gone:
            del files[p]
    else:
        raise Refusal(400, f"unknown operation {key!r}")


# -- Spaces ----------------------------------------------------------------------------------------------------------


def space_runtime(hub: StandInHub, request: Request, repo_id: str) -> Answer:
    return Answer.of(runtime(hub.to_see("space", repo_id, hub.who(request))))


def space_hardware(hub: StandInHub, request: Request, repo_id: str) -> Answer:
    repository = _own_space(hub, request, repo_id)
    repository.space.hardware = request.json["flavor"]
    repository.space.sleep_time = request.json.get("sleepTimeSeconds", repository.space.sleep_time)
    return Answer.of(runtime(repository))


def space_settings(hub: StandInHub, request: Request, repo_id: str, what: str) -> Answer:
    """Variables are shown with their values, secrets without."""
    repository = _own_space(hub, request, repo_id)
    values = repository.space.variables if what == "variables" else repository.space.secrets
    if request.method == "POST":
        values[request.json["key"]] = request.json
    elif request.method == "DELETE":
        values.pop(request.json["key"], None)
    hidden = () if what == "variables" else ("value",)
    return Answer.of({key: {n: v for n, v in value.items() if n not in hidden} for key, value in values.items()})


def _own_space(hub: StandInHub, request: Request, repo_id: str) -> Repository:
    return hub.to_write("space", repo_id, hub.who(request))[0]
