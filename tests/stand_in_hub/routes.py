"""Which address is answered by which function."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.stand_in_hub import listings, objects, uploads
from tests.stand_in_hub.refusals import Refusal
from tests.stand_in_hub.repositories import KINDS
from tests.stand_in_hub.wire import Answer, Request

if TYPE_CHECKING:
    from tests.stand_in_hub.hub import StandInHub

REPO = "/api/(?P<kind>models|datasets|spaces)/(?P<repo_id>[^/]+(?:/[^/]+)?)"
SPACE = "/api/spaces/(?P<repo_id>[^/]+/[^/]+)"
PAGE = "(?:/(?P<kind>datasets|spaces))?/(?P<repo_id>[^/]+(?:/[^/]+)?)"
LFS = PAGE + r"\.git/info/lfs"

Route = tuple[str, str, Callable[..., Answer]]

ROUTES: list[Route] = [
    ("GET", "/api/whoami-v2", listings.whoami),
    ("GET", "/api/(?P<kind>models|datasets|spaces)", listings.listing),
    ("GET", REPO + "/auth-check(?P<write>/write)?", listings.auth_check),
    ("GET", REPO + "/revision/(?P<revision>[^/]+)", listings.info),
    ("GET", REPO + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", listings.tree),
    ("POST", REPO + "/paths-info/(?P<revision>[^/]+)", listings.paths_info),
    ("GET", REPO + "/commits/(?P<revision>[^/]+)", listings.commits),
    ("GET", REPO + "/refs", listings.refs),
    ("POST", "/api/repos/create", uploads.create),
    ("DELETE", "/api/repos/delete", uploads.delete),
    ("POST", "/api/validate-yaml", uploads.validate_card),
    ("PUT", REPO + "/settings", uploads.settings),
    ("POST", REPO + "/branch/(?P<branch>[^/]+)", uploads.create_branch),
    ("DELETE", REPO + "/branch/(?P<branch>[^/]+)", uploads.delete_branch),
    ("POST", REPO + "/tag/(?P<revision>[^/]+)", uploads.create_tag),
    ("POST", REPO + "/preupload/(?P<revision>[^/]+)", uploads.preupload),
    ("POST", REPO + "/commit/(?P<revision>[^/]+)", uploads.commit),
    ("GET", SPACE + "/runtime", uploads.space_runtime),
    ("POST", SPACE + "/hardware", uploads.space_hardware),
    ("GET|POST|DELETE", SPACE + "/(?P<what>variables|secrets)", uploads.space_settings),
    ("GET", REPO, listings.info),
    ("GET|HEAD", PAGE + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)", objects.resolve),
    ("POST", LFS + "/objects/batch", objects.batch),
    ("POST", LFS + "/objects/verify", objects.verify),
]

STORAGE: list[Route] = [
    ("GET|HEAD", "/storage/(?P<sha256>[0-9a-f]{64})/(?P<name>[^/]*)", objects.fetch),
    ("PUT", "/storage/(?P<sha256>[0-9a-f]{64})/", objects.bring),
]


def respond(hub: StandInHub, request: Request) -> Answer:
    return _respond(hub, request, ROUTES)


def respond_storage(hub: StandInHub, request: Request) -> Answer:
    return _respond(hub, request, STORAGE)


def _respond(hub: StandInHub, request: Request, routes: list[Route]) -> Answer:
    """Calls the first that fits with what its address names: `kind` in the singular, the rest without quoting."""
    for methods, pattern, function in routes:
        found = re.fullmatch(pattern, request.raw_path) if request.method in methods.split("|") else None
        if found:
            named = {name: unquote(value or "") for name, value in found.groupdict().items()}
            if "kind" in named:
                named["kind"] = KINDS[named["kind"] or "models"]
            with hub.lock:
                return function(hub, request, **named)
    raise Refusal(404, "Sorry, we can't find the page you are looking for.")
