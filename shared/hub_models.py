"""Any model of the Hub as a checkpoint of the catalog: what it is, is read from its config and its card."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from shared.catalog import Catalog, Checkpoint, HubSource, Kind, Pair, Task
from shared.errors import SuiteError, UnknownCheckpoint
from shared.events import Loading
from shared.hub_errors import in_words
from shared.hub_link import HubLink
from shared.repository import as_wanted, read_config, refuse_remote_code, wanted_files

ARCHITECTURES: dict[str, tuple[Kind, str]] = {
    "ForCausalLM": ("causal-lm", "causal_lm"),
    "LMHeadModel": ("causal-lm", "causal_lm"),
    "ForConditionalGeneration": ("seq2seq", "seq2seq"),
    "MTModel": ("seq2seq", "seq2seq"),
    "ForSequenceClassification": ("sequence-classifier", "sequence_classifier"),
    "ForMaskedLM": ("masked-lm", "masked_lm"),
    "ForQuestionAnswering": ("question-answerer", "question_answering"),
    "Wav2Vec2ForSequenceClassification": ("audio-classifier", "audio_classifier"),
}
"""End of a model class's name → kind and engine; the longest that fits counts."""

SEQ2SEQ_MODELS = {"t5", "mt5", "marian", "m2m_100", "bart", "mbart", "pegasus"}
"""`ForConditionalGeneration` also names models of images and speech, which are not for the engine here."""

UNTESTED = "Added by hand: nothing of it was measured here. Its own card says what it can do."


def described(repo: str, link: HubLink) -> Checkpoint:
    """The catalog entry of a repository, pinned to the commit it has now. Fetches its configuration only.

    Raises `SuiteError`s that say why it cannot be used: no such repository, gated, remote code, no weights we read,
    an architecture no engine here runs.
    """
    link.require()
    try:
        HubSource(repo=repo)
    except ValueError:
        raise UnknownCheckpoint(f"{repo!r} is not a repository id; those look like user/name", field="model") from None
    from huggingface_hub import hf_hub_download

    api = link.api
    try:
        info = api.model_info(repo, files_metadata=True)
        files = wanted_files(info.siblings or [], repo)
        config = Path(hf_hub_download(repo, "config.json", revision=info.sha, endpoint=api.endpoint))
    except SuiteError:
        raise
    except Exception as error:
        raise in_words(error, repo) from error
    refuse_remote_code(config, repo)
    return _entry(repo, info, read_config(config, repo), sum(f.size for f in files if _is_weights(f.name)))


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _entry(repo: str, info: Any, config: dict[str, Any], weight_bytes: int) -> Checkpoint:
    card = info.card_data.to_dict() if info.card_data else {}
    names = {as_wanted(sibling).name for sibling in info.siblings or []}
    kind, engine = _kind(repo, config, info, names)
    languages = _languages(card, config)
    pairs = _pairs(repo, config) if kind == "seq2seq" else ()
    tasks = _tasks(kind, config, info.pipeline_tag, pairs)
    if not tasks:
        raise UnknownCheckpoint(f"{repo} is a {kind}, and no tab here has a use for it", field="model")
    total = getattr(info.safetensors, "total", 0) or max(1, weight_bytes // 4)
    return Checkpoint(
        id=repo,
        kind=kind,
        engine=engine,
        profile="hub",
        tasks=tasks,
        languages=tuple(dict.fromkeys([*languages, *(code for pair in pairs for code in pair)])) or ("en",),
        pairs=pairs,
        prefixes=_prefixes(config),
        licence=str(card.get("license") or "not stated"),
        authors=repo.partition("/")[0],
        parameters=int(total),
        context_window=_context_window(config),
        revision=info.sha,
        limits=UNTESTED,
        source=HubSource(repo=repo, bytes_per_parameter=min(8, max(1, round(weight_bytes / total)))),
    )


def _kind(repo: str, config: dict[str, Any], info: Any, names: set[str]) -> tuple[Kind, str]:
    if "sentence-transformers" in (info.library_name or "", *(info.tags or [])) and config.get("model_type") == "bert":
        return "sentence-encoder", "sentence_encoder"
    for architecture in config.get("architectures") or []:
        fitting = [end for end in ARCHITECTURES if str(architecture).endswith(end)]
        if fitting:
            kind, engine = ARCHITECTURES[max(fitting, key=len)]
            if kind == "seq2seq" and config.get("model_type") not in SEQ2SEQ_MODELS:
                break
            return kind, engine
    said = ", ".join(map(str, config.get("architectures") or [])) or "no architecture"
    raise UnknownCheckpoint(
        f"{repo} names {said}, which no engine here runs; those run models that end in {', '.join(ARCHITECTURES)}",
        field="model",
    )


def _tasks(kind: Kind, config: dict[str, Any], tag: str | None, pairs: tuple[Pair, ...]) -> tuple[Task, ...]:
    if kind == "causal-lm":
        chat: tuple[Task, ...] = ("conversational", "summarization") if tag == "text-generation" else ()
        return ("text-generation", "few-shot-classification", "zero-shot-classification", *chat)
    if kind == "seq2seq":
        return ("translation",) if pairs else ("summarization",)
    if kind == "sequence-classifier":
        labels = {str(label).lower() for label in (config.get("id2label") or {}).values()}
        entails = any(label.startswith("entail") for label in labels)
        return ("zero-shot-classification",) if entails else ("text-classification",)
    found: dict[Kind, tuple[Task, ...]] = {
        "sentence-encoder": (
            "feature-extraction",
            "zero-shot-classification",
            "few-shot-classification",
            "text-classification",
            "summarization",
            "question-answering",
        ),
        "masked-lm": ("fill-mask",),
        "question-answerer": ("question-answering",),
        "audio-classifier": ("audio-classification",),
    }
    return found.get(kind, ())


def _pairs(repo: str, config: dict[str, Any]) -> tuple[Pair, ...]:
    """Of T5's task parameters (`translation_en_to_fr`), or of a Marian repository's name (`opus-mt-en-es`)."""
    named = [name.split("_") for name in config.get("task_specific_params") or {} if name.startswith("translation_")]
    pairs = [(words[1], words[3]) for words in named if len(words) == 4]
    if config.get("model_type") == "marian":
        parts = repo.split("-")
        if len(parts) >= 2 and all(len(part) in (2, 3) and part.isalpha() for part in parts[-2:]):
            pairs.append((parts[-2].lower(), parts[-1].lower()))
    return tuple(pairs)


def _prefixes(config: dict[str, Any]) -> dict[str, str]:
    """From T5's task parameters, whose `translation_en_to_fr` is our `en-fr`."""
    found = {}
    for task, parameters in (config.get("task_specific_params") or {}).items():
        if isinstance(parameters, dict) and isinstance(parameters.get("prefix"), str):
            words = task.split("_")
            found[f"{words[1]}-{words[3]}" if len(words) == 4 else task] = parameters["prefix"]
    return found


def _languages(card: dict[str, Any], config: dict[str, Any]) -> list[str]:
    stated = card.get("language") or []
    return [str(code).lower() for code in (stated if isinstance(stated, list) else [stated])]


def _context_window(config: dict[str, Any]) -> int:
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_length"):
        value = config.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return 512


def added(repos: tuple[str, ...], catalog: Catalog, link: HubLink) -> Generator[Loading, None, list[str]]:
    """Adds repositories to the catalog; returns what went wrong, one sentence for each that could not be added."""
    problems = []
    for repo in repos:
        yield Loading(repo, "asking the Hub what it is", 0, 0)
        try:
            catalog.add(described(repo, link))
        except SuiteError as error:
            problems.append(f"{repo}: {error.message}")
    return problems
