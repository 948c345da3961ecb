"""Any model of the Hub as a checkpoint of the catalog: what it is, is read from its config and its card."""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Collection, Generator
from typing import Any

from shared.checkpoints import kinds
from shared.checkpoints.catalog import Catalog, Checkpoint, HubSource, Pair
from shared.checkpoints.kinds import HubModel
from shared.checkpoints.repository import (
    WantedFile,
    has_tokenizer,
    parsed_config,
    refuse_named_code,
    refuse_unknown_architecture,
    stated_files,
    wanted_files,
)
from shared.errors import SuiteError, UnknownCheckpoint, WeightsCorrupt, did_you_mean
from shared.events import Loading
from shared.fetching.hub_errors import as_suite_error, model_info, with_retries
from shared.fetching.hub_fetch import stream
from shared.fetching.hub_link import PATIENCE, HubLink
from shared.media.languages import LANGUAGE_NAMES

MOST_SEARCHED = 50
"""Most repositories that are compared with a mistyped id."""
LONGEST_LICENCE = 60
"""Characters."""

UNTESTED = "Added by hand: nothing of it was measured here. Its own card says what it can do."


def described(repo: str, link: HubLink) -> Checkpoint:
    """The catalog entry of a repository, pinned to the commit it has now. Reads its configuration only, keeps nothing.

    Raises `SuiteError`s that say why it cannot be used: no such repository, gated, remote code, no weights we read,
    an architecture no engine here runs or the installed transformers does not know.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    link.require()
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise as_suite_error(error, repo) from None
    try:
        info = model_info(link.api, repo)
    except UnknownCheckpoint as error:
        raise UnknownCheckpoint(f"{error.message}{_meant(repo, link.api)}", field=error.field) from error
    files = {file.name: file for file in stated_files(info.siblings or [], repo, wanted_files)}
    config = parsed_config(content_of(link.api, repo, info.sha, files["config.json"]), "config.json", repo)
    refuse_named_code(config, "config.json", repo)
    try:
        return _entry(repo, info, config, files.values())
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise WeightsCorrupt(
            f"the config.json or the card of {repo} holds values that make no sense; tell its owner, or choose another "
            "checkpoint"
        ) from error


def content_of(api: Any, repo: str, commit: str, file: WantedFile) -> bytes:
    """A small file, checked. Raises `SuiteError`."""
    from huggingface_hub.utils import hf_raise_for_status

    def ask() -> bytes:
        with stream(api, repo, commit, file.name, {}) as response:
            response.read()
            hf_raise_for_status(response)
            return response.content

    try:
        content = with_retries(ask)
    except Exception as error:
        raise as_suite_error(error, repo) from error
    if not file.is_right(io.BytesIO(content)):
        raise WeightsCorrupt(
            f"{file.name} of {repo} arrived with another content than the Hub states (its hash differs); try again, or "
            "from another network"
        )
    return content


def _meant(repo: str, api: Any) -> str:
    """`Did you mean …?` where the Hub has a repository of nearly that name, else nothing; takes seconds at most."""
    found: list[str] = []

    def search() -> None:
        owner, _, name = repo.rpartition("/")
        parts = sorted(re.split(r"[-_.]", name), key=len)
        questions = [{"search": name}, {"author": owner}, {"search": parts[-1]}, {"search": f"{owner}/"}]
        with contextlib.suppress(Exception):  # a suggestion beside an error must not raise another
            for question in questions:
                if any(question.values()) and not _closest(repo, found):
                    found.extend(model.id for model in api.list_models(**question, limit=MOST_SEARCHED))

    thread = threading.Thread(target=search, name="search-hub", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    meant = _closest(repo, list(found))
    return meant and f".{meant}"


def _closest(repo: str, ids: list[str]) -> str:
    """` Did you mean …?`, of those ids that hold nothing but what an id may hold."""
    return did_you_mean(repo, [one for one in ids if re.fullmatch(r"[\w./-]{1,200}", one, re.ASCII)], cutoff=0.8)


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _entry(repo: str, info: Any, config: dict[str, Any], files: Collection[WantedFile]) -> Checkpoint:
    card = info.card_data.to_dict() if info.card_data else {}
    libraries = (info.library_name or "", *(info.tags or []))
    model = HubModel(config, info.pipeline_tag, libraries, _pairs(repo, config))
    kind = kinds.kind_of(model)
    if kind is None:
        named = ", ".join(map(str, config.get("architectures") or []))[:200] or "no architecture"
        raise UnknownCheckpoint(
            f"{repo} names {named}, which no engine here runs; those run models that end in "
            f"{', '.join(kinds.architectures())}. Choose one of these",
            field="model",
        )
    refuse_unknown_architecture(repo, model.model_type)
    if kind.inputs == "text" and not has_tokenizer(file.name for file in files):
        raise WeightsCorrupt(
            f"{repo} has no tokenizer (neither tokenizer.json nor a vocabulary), so no text can be given to it; tell "
            "its owner, or choose another checkpoint",
            field="model",
        )
    if model.any_pair and not any(file.name == "vocab.json" for file in files):
        raise UnknownCheckpoint(
            f"{repo} keeps its vocabulary in another way than M2M100 (as NLLB does), which no engine here reads; "
            "choose another checkpoint",
            field="model",
        )
    languages = list(LANGUAGE_NAMES) if model.any_pair else _languages(card)
    pairs = model.pairs if "translation" in kind.tasks else ()
    tasks = kind.tasks_of(model) if kind.tasks_of else kind.tasks
    if not tasks:
        raise UnknownCheckpoint(f"{repo} is a {kind.name}, and no tab here has a use for it", field="model")
    weight_bytes = sum(file.size for file in files if _is_weights(file.name))
    # The Hub's count, but no fewer than the bytes allow, since the check of memory relies on it.
    total = max(1, weight_bytes // 8, getattr(info.safetensors, "total", 0) or weight_bytes // 4)
    return Checkpoint(
        id=repo,
        kind=kind.name,
        engine=kind.engine,
        profile="hub",
        tasks=tasks,
        languages=tuple(dict.fromkeys([*languages, *(code for pair in pairs for code in pair)])) or ("en",),
        pairs=pairs,
        any_pair=model.any_pair,
        prefixes=_prefixes(config),
        licence=str(card.get("license") or "not stated")[:LONGEST_LICENCE],
        authors=repo.partition("/")[0],
        parameters=int(total),
        context_window=_context_window(config),
        revision=info.sha,
        limits=UNTESTED,
        source=HubSource(
            repo=repo,
            bytes_per_parameter=min(8, max(1, round(weight_bytes / total))),
            download_bytes=sum(file.size for file in files) or None,
        ),
    )


def _pairs(repo: str, config: dict[str, Any]) -> tuple[Pair, ...]:
    """Of T5's task parameters (`translation_en_to_fr`), or of a Marian repository's name (`opus-mt-en-es`)."""
    tasks = config.get("task_specific_params") or {}
    found = [re.fullmatch("translation_([a-z]{2,3})_to_([a-z]{2,3})", task) for task in tasks]
    if config.get("model_type") == "marian":
        found.append(re.search("-([a-z]{2,3})-([a-z]{2,3})$", repo.lower()))
    return tuple(dict.fromkeys((pair[1], pair[2]) for pair in found if pair and pair[1] != pair[2]))


def _prefixes(config: dict[str, Any]) -> dict[str, str]:
    """From T5's task parameters, whose `translation_en_to_fr` is our `en-fr`."""
    found = {}
    for task, parameters in (config.get("task_specific_params") or {}).items():
        if isinstance(parameters, dict) and isinstance(parameters.get("prefix"), str):
            words = task.split("_")
            found[f"{words[1]}-{words[3]}" if len(words) == 4 else task] = parameters["prefix"]
    return found


def _languages(card: dict[str, Any]) -> list[str]:
    """Codes that the card states; whatever else stands there is left out."""
    stated = card.get("language") or []
    codes = (str(code).lower() for code in (stated if isinstance(stated, list) else [stated]))
    return [code for code in codes if re.fullmatch("[a-z]{2,3}", code)]


def _context_window(config: dict[str, Any]) -> int:
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
        value = config.get(name)
        if isinstance(value, int) and value > 1:
            return value
    return 512


def add(repo: str, catalog: Catalog, link: HubLink) -> Checkpoint:
    """Adds a repository to the catalog, or brings one that was added before to its newest commit. Raises `SuiteError`.

    What the catalog itself says of a checkpoint stays: it knows more than a config and a card do.
    """
    for known in catalog:
        if known.id == repo and known.limits != UNTESTED:
            return known
    checkpoint = described(repo, link)
    catalog.add(checkpoint)
    return checkpoint


def added(repos: tuple[str, ...], catalog: Catalog, link: HubLink) -> Generator[Loading, None, list[str]]:
    """Adds repositories to the catalog; returns what went wrong, one sentence for each that could not be added."""
    problems = []
    for repo in repos:
        yield Loading(repo, "asking the Hub what it is", 0, 0)
        try:
            add(repo, catalog, link)
        except SuiteError as error:
            problems.append(f"{repo}: {error.message}")
    return problems
