"""An adapter of the Hub: described from its small files, its weights fetched when it is first used."""

from __future__ import annotations

from collections.abc import Mapping

from shared.checkpoints.adapter_folder import METADATA_FILE, Adapter, described, parsed_metadata
from shared.checkpoints.adapters import as_repository
from shared.checkpoints.catalog import Checkpoint
from shared.checkpoints.peft_config import parsed
from shared.checkpoints.repository import ADAPTER_CONFIG, ADAPTER_WEIGHTS, stated_files, wanted_adapter_files
from shared.errors import UnknownCheckpoint
from shared.fetching.hub_errors import model_info
from shared.fetching.hub_link import HubLink
from shared.fetching.hub_models import content_of


def adapter_of(repo: str, revision: str, link: HubLink, known: Mapping[str, Checkpoint]) -> Adapter:
    """The adapter in a repository, pinned to the commit that `revision` ("" for the newest) is now.

    Reads its configuration only, and keeps nothing. Raises `SuiteError`s that say why it cannot be used.
    """
    link.require()
    if "/" not in repo:
        raise UnknownCheckpoint(f"{repo[:100]!r} is not a repository id; those look like user/name", field="model")
    info = model_info(link.api, repo, revision)
    files = {file.name: file for file in stated_files(info.siblings or [], repo, wanted_adapter_files)}
    config = parsed(content_of(link.api, repo, info.sha, files[ADAPTER_CONFIG]), repo)
    metadata = content_of(link.api, repo, info.sha, files[METADATA_FILE]) if METADATA_FILE in files else b""
    return described(
        repo,
        config,
        parsed_metadata(metadata, repo),
        {},
        known,
        nbytes=files[ADAPTER_WEIGHTS].size,
        memory=2 * files[ADAPTER_WEIGHTS].size,  # as if it were in half precision; the download shows its real size
        revision=info.sha,
        repository=as_repository(repo, info.sha, sum(file.size for file in files.values())),
    )
