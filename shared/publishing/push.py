"""An assembled Space onto the Hub: created or updated, byte for byte the folder that was assembled."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from shared.checkpoints.adapters import is_repository
from shared.checkpoints.catalog import Checkpoint, HubSource
from shared.checkpoints.repository import wanted_files
from shared.errors import InvalidInput
from shared.fetching import hub_writing
from shared.fetching.hub_errors import as_suite_error, with_retries
from shared.publishing.assemble import Assembled, assemble, preloaded
from shared.serving.space import ROOT

T = TypeVar("T")

SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|AUTH|KEY", re.IGNORECASE)
"""Names of variables that everybody could read on the Space's page, and should not."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """Repository of a Space on the Hub, and its settings there."""

    repo: str
    private: bool = False
    hardware: str = ""
    """As the Hub calls it, such as `cpu-basic` or `zero-a10g`; "" leaves the choice, or what there is, as it is."""
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from huggingface_hub import SpaceHardware

        if not is_repository(self.repo):
            raise InvalidInput(f"{self.repo!r} is not of the form user/name", field="--repo")
        known = [str(hardware.value) for hardware in SpaceHardware]
        if self.hardware and self.hardware not in known:
            raise InvalidInput(
                f"the Hub has no {self.hardware!r}; it has {', '.join(known)}",
                field="--hardware",
            )
        for name in self.variables:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise InvalidInput(f"{name!r} is not the name of a variable", field="--variable")
            if SECRET.search(name):
                raise InvalidInput(
                    f"{name} looks like a secret, and the variables of a Space can be read by everybody; set it as a "
                    "secret in the settings of the Space",
                    field="--variable",
                )


def deploy(name: str, target: Target, say: Say = print, *, root: Path = ROOT) -> str:
    """Creates or updates the Space and returns its address. Files that are no longer part of it are removed there.

    Raises `SuiteError`s that say what to do: no token, one that may not write, a Hub that cannot be reached.
    """
    api = hub_writing.client()
    ask = _request(api, target)
    address = f"{api.endpoint}/spaces/{target.repo}"
    assembled = with_preload(name, api, say, thumbnail=f"{address}/resolve/main/thumbnail.png", root=root)
    say(assembled.listing())
    there = ask(lambda: api.repo_exists(target.repo, repo_type="space"))
    before = set(ask(lambda: api.list_repo_files(target.repo, repo_type="space"))) if there else set()
    prepare(api, target, there=there)
    with tempfile.TemporaryDirectory() as folder:
        assembled.write(Path(folder))
        ask(
            lambda: api.upload_folder(
                repo_id=target.repo,
                repo_type="space",
                folder_path=folder,
                delete_patterns="*",
                commit_message=f"Deploy {name}",
            )
        )
    gone = sorted(before - set(assembled.files) - {".gitattributes"})
    if gone:
        say(f"removed there: {', '.join(gone)}")
    say(f"{'updated' if there else 'created'}: {address}")
    return address


def with_preload(name: str, api: Any, say: Say, *, thumbnail: str = "", root: Path = ROOT) -> Assembled:
    """The Space with `preload_from_hub` filled in, as far as the Hub can be reached."""
    lines, remarks = preload_lines(preloaded(name, root), api)
    for remark in remarks:
        say(remark)
    return assemble(name, root=root, preload=lines, thumbnail=thumbnail)


def preload_lines(checkpoints: Sequence[Checkpoint], api: Any) -> tuple[list[str], list[str]]:
    """Lines `repo file1,file2 commit` for the card, and a remark for each checkpoint that has none."""
    lines: list[str] = []
    remarks: list[str] = []
    for checkpoint in checkpoints:
        assert isinstance(checkpoint.source, HubSource)
        repo, commit = checkpoint.source.repo, checkpoint.revision
        later = f"so {repo} is not preloaded; the Space fetches it when it is first used"
        if not commit:
            remarks.append(f"the catalog pins no commit of it (`python -m shared.fetching.pin`), {later}")
            continue
        try:
            names = _needed(api, repo, commit)
        except Exception as error:
            found = as_suite_error(error, repo)
            if found.status == 503:
                return [], [f"nothing is preloaded, models are fetched when they are first used: {found.message}"]
            remarks.append(f"{found.message}, {later}")
            continue
        lines.append(f"{repo} {','.join(sorted(names))} {commit}")
    return lines, remarks


def _needed(api: Any, repo: str, commit: str) -> list[str]:
    info = with_retries(lambda: api.model_info(repo, revision=commit, files_metadata=True))
    return [file.name for file in wanted_files(info.siblings or [], repo)]


def prepare(api: Any, target: Target, *, there: bool) -> None:
    """Creates the repository, or gives an existing one the settings of the target."""
    ask = _request(api, target)
    if not there:
        variables = [{"key": name, "value": value} for name, value in target.variables.items()]
        ask(
            lambda: api.create_repo(
                target.repo,
                repo_type="space",
                space_sdk="gradio",
                private=target.private,
                space_hardware=target.hardware or None,
                space_variables=variables or None,
                exist_ok=True,
            )
        )
        return
    if target.private:
        ask(lambda: api.update_repo_settings(target.repo, repo_type="space", private=True))
    for name, value in target.variables.items():
        ask(lambda name=name, value=value: api.add_space_variable(target.repo, name, value))
    if target.hardware:
        ask(lambda: api.request_space_hardware(target.repo, target.hardware))


def _request(api: Any, target: Target) -> Callable[[Callable[[], T]], T]:
    """`hub_writing.request` for this Space."""

    def ask(call: Callable[[], T]) -> T:
        return hub_writing.request(api, target.repo, call, costs=target.hardware or "this Space")

    return ask
