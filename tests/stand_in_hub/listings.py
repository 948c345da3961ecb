"""Questions about repositories, and who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from tests.stand_in_hub import refusals
from tests.stand_in_hub.descriptions import SHORT, describe, selected
from tests.stand_in_hub.repositories import Commit
from tests.stand_in_hub.wire import Answer, Request

if TYPE_CHECKING:
    from tests.stand_in_hub.hub import StandInHub


def whoami(hub: StandInHub, request: Request) -> Answer:
    token = hub.who(request)
    if token is None:
        raise refusals.log_in_first()
    return Answer.of(
        {
            "type": "user",
            "id": token.user,
            "name": token.user,
            "fullname": token.user.title(),
            "isPro": False,
            "canPay": False,
            "orgs": [
                {"type": "org", "id": name, "name": name, "roleInOrg": token.role} for name in token.organizations
            ],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": token.role}},
        }
    )


def auth_check(hub: StandInHub, request: Request, kind: str, repo_id: str, write: str) -> Answer:
    if write:
        hub.to_write(kind, repo_id, hub.who(request))
    else:
        hub.to_fetch(kind, repo_id, hub.who(request))
    return Answer.of({})


def info(hub: StandInHub, request: Request, kind: str, repo_id: str, revision: str = "main") -> Answer:
    repository = hub.to_see(kind, repo_id, hub.who(request))
    about = describe(repository, repository.find(revision), blobs="blobs" in request.query)
    return Answer.of(selected(about, request.query["expand"]) if "expand" in request.query else about)


def listing(hub: StandInHub, request: Request, kind: str) -> Answer:
    """Repositories whose id holds every word of `search`, with every tag of `filter`."""
    token, query = hub.who(request), request.query
    words = " ".join(query.get("search", [])).lower().split()
    wanted = [tag for given in query.get("filter", []) for tag in given.split(",")] + query.get("pipeline_tag", [])
    found: list[dict[str, Any]] = []
    for (its_kind, repo_id), repository in sorted(hub.repositories.items()):
        if its_kind != kind or not hub.may_see(repository, token):
            continue
        about = describe(repository, repository.branches["main"])
        has = {*about["tags"], about.get("pipeline_tag"), about.get("library_name")}
        author = query.get("author", [repository.namespace])[0]
        if author == repository.namespace and all(w in repo_id.lower() for w in words) and has.issuperset(wanted):
            found.append(_as_listed(about, query))
    return Answer.of(found[: int(query.get("limit", ["1000"])[0])])


def _as_listed(about: dict[str, Any], query: dict[str, list[str]]) -> dict[str, Any]:
    if "expand" in query:
        return selected(about, query["expand"])
    names = list(SHORT)
    for name in ("config", "cardData"):
        names += [name] if name in query else []
    if "full" in query:
        names += ["author", "sha", "lastModified", "gated", "disabled", "siblings"]
    return selected(about, names)


def tree(hub: StandInHub, request: Request, kind: str, repo_id: str, revision: str, folder: str) -> Answer:
    commit = hub.to_see(kind, repo_id, hub.who(request)).find(revision)
    inside = f"{folder.strip('/')}/" if folder.strip("/") else ""
    recursive, expand = _asked(request.query, "recursive"), _asked(request.query, "expand")
    paths = [path for path in (*commit.folders(), *commit.files) if path.startswith(inside)]
    if inside and not paths:
        raise refusals.entry_not_found(f"{folder} does not exist on {revision!r}", commit.id)
    return Answer.of(
        [_entry(commit, path, expand) for path in sorted(paths) if recursive or "/" not in path.removeprefix(inside)]
    )


def paths_info(hub: StandInHub, request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    """Of those paths that there are."""
    commit = hub.to_see(kind, repo_id, hub.who(request)).find(revision)
    form = parse_qs(request.body.decode())
    known = {*commit.files, *commit.folders()}
    paths = [path.strip("/") for path in form.get("paths", [])]
    return Answer.of([_entry(commit, path, _asked(form, "expand")) for path in paths if path in known])


def commits(hub: StandInHub, request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    history = hub.to_see(kind, repo_id, hub.who(request)).find(revision).history()
    return Answer.of(
        [
            {"id": c.id, "title": c.title, "message": c.description, "authors": [{"user": c.author}], "date": c.date}
            for c in history
        ]
    )


def refs(hub: StandInHub, request: Request, kind: str, repo_id: str) -> Answer:
    repository = hub.to_see(kind, repo_id, hub.who(request))

    def listed(folder: str, named: dict[str, Commit]) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": c.id} for n, c in named.items()]

    branches, tags = listed("heads", repository.branches), listed("tags", repository.tags)
    return Answer.of({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


def _asked(query: dict[str, list[str]], name: str) -> bool:
    return query.get(name, ["false"])[0].lower() in ("true", "1")


def _entry(commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    about: dict[str, Any] = {"type": "directory", "path": path, "size": 0}
    if path in commit.files:
        file = commit.files[path]
        about |= {"type": "file", "oid": file.blob_id, "size": len(file.data)}
        if file.lfs:
            about["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
    else:
        about["oid"] = commit.folders()[path]
    if expand:
        last = commit.last_changed(path)
        about["lastCommit"] = {"id": last.id, "title": last.title, "date": last.date}
    return about
