"""What the Hub says when it refuses: status, error code and sentence, by which the clients choose their exception."""

from __future__ import annotations


class Refusal(Exception):
    """An answer of 400 or above. `code` goes out as X-Error-Code, the message as X-Error-Message and in the body."""

    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}
        self.body: dict[str, object] = {"error": message}


def repository_not_found(anonymous: bool) -> Refusal:
    """Missing, or private and not for this caller: the Hub does not say which, and asks the anonymous to log in.

    The Hub sends no code with the 401: its clients know its API by an https address. Ours is http, so they need it.
    """
    if anonymous:
        return Refusal(401, "Invalid username or password.", "RepoNotFound", {"WWW-Authenticate": "Bearer"})
    return Refusal(404, "Repository not found", "RepoNotFound")


def gated(kind: str, repo_id: str, anonymous: bool, page: str) -> Refusal:
    if anonymous:
        return Refusal(
            401,
            f"Access to {kind} {repo_id} is restricted. You must have access to it and be authenticated to access it. "
            "Please log in.",
            "GatedRepo",
            {"WWW-Authenticate": "Bearer"},
        )
    return Refusal(
        403,
        f"Access to {kind} {repo_id} is restricted and you are not in the authorized list. Visit {page} to ask for "
        "access.",
        "GatedRepo",
    )


def wrong_token() -> Refusal:
    return Refusal(401, "Invalid credentials in Authorization header", headers={"WWW-Authenticate": "Bearer"})


def log_in_first() -> Refusal:
    return Refusal(401, "Invalid username or password.", headers={"WWW-Authenticate": "Bearer"})


def disabled() -> Refusal:
    return Refusal(403, "Access to this resource is disabled.")


def read_only_token() -> Refusal:
    return Refusal(403, "Forbidden: you must use a write token to upload to a repository.")


def not_your_namespace(kind: str, namespace: str) -> Refusal:
    return Refusal(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')


def not_your_repository() -> Refusal:
    return Refusal(403, "Authorization error: you do not have write access to this repository.")


def revision_not_found(revision: str) -> Refusal:
    return Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(message: str = "Entry not found", commit: str = "") -> Refusal:
    return Refusal(404, message, "EntryNotFound", {"X-Repo-Commit": commit} if commit else None)


def exists_already(message: str, url: str) -> Refusal:
    refusal = Refusal(409, message)
    refusal.body["url"] = url
    return refusal
