"""A repository as the Hub's API describes it, read from its files: card, config.json, headers of safetensors."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

from tests.stand_in_hub.repositories import Commit, File, Repository

TASKS = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForMaskedLM": "fill-mask",
    "ForQuestionAnswering": "question-answering",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForAudioClassification": "audio-classification",
    "ForImageClassification": "image-classification",
    "ForCTC": "automatic-speech-recognition",
}
"""Task by the end of the architecture's name, for models whose card names none."""

TEXTS = ("pipeline_tag", "library_name")
"""Fields of a card that are one text each."""

SHORT = ("_id", "id", "modelId", "likes", "downloads", "private", "tags", "pipeline_tag", "library_name", "createdAt")
"""What a listing says of each repository unless asked for more."""


def describe(repository: Repository, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """All there is to say, of the repository at this commit."""
    files = commit.files
    card = card_of(files)
    about: dict[str, Any] = {
        "_id": commit.history()[-1].id[:24],
        "id": repository.id,
        "author": repository.namespace,
        "sha": commit.id,
        "createdAt": commit.history()[-1].date,
        "lastModified": commit.date,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": repository.disabled,
        "likes": 0,
        "downloads": 0,
        "tags": _card_tags(card),
        "cardData": card,
        "usedStorage": sum(len(file.data) for file in files.values()),
        "siblings": [_sibling(path, file, blobs) for path, file in sorted(files.items())],
    }
    if repository.kind == "model":
        about |= _of_a_model(repository, files, card, about["tags"])
    if repository.kind == "space":
        subdomain = re.sub(r"[^a-z0-9]+", "-", repository.id.lower())
        about |= {"sdk": repository.space.sdk, "subdomain": subdomain, "runtime": runtime(repository)}
        about["host"] = repository.space.host or None
    return {name: value for name, value in about.items() if value is not None}


def selected(about: dict[str, Any], expand: list[str]) -> dict[str, Any]:
    """As with `expand`: only what was asked for, beside the ids."""
    return {name: value for name, value in about.items() if name in ("_id", "id", *expand)}


def runtime(repository: Repository) -> dict[str, Any]:
    space, files = repository.space, repository.branches["main"].files
    app_file = (card_of(files) or {}).get("app_file", "app.py")
    has_app = app_file in files or "Dockerfile" in files or "index.html" in files
    return {
        "stage": space.stage if has_app else "NO_APP_FILE",
        "hardware": {"current": space.hardware if has_app else None, "requested": space.hardware},
        "storage": None,
        "gcTimeout": space.sleep_time,
        "replicas": {"current": int(has_app), "requested": 1},
    }


def card_of(files: Mapping[str, File]) -> dict[str, Any] | None:
    """The metadata of README.md; None without such."""
    if "README.md" not in files:
        return None
    try:
        return card_metadata(files["README.md"].data.decode(errors="replace"))
    except yaml.YAMLError:
        return None


def card_metadata(text: str) -> dict[str, Any] | None:
    """The front matter of a card. Raises `yaml.YAMLError` if there is one that cannot be read."""
    found = re.match(r"---[ \t]*\r?\n(.*?\r?\n|)---[ \t]*(\r?\n|$)", text, re.DOTALL)
    metadata = yaml.safe_load(found[1]) if found else None
    return metadata if isinstance(metadata, dict) else None


def _of_a_model(
    repository: Repository, files: Mapping[str, File], card: dict[str, Any] | None, tags: list[str]
) -> dict[str, Any]:
    config, adapter = _json(files, "config.json"), _json(files, "adapter_config.json")
    names = ("architectures", "model_type", "auto_map", "quantization_config")
    shown = {name: config[name] for name in names if name in config}
    if adapter:
        base, task = adapter.get("base_model_name_or_path"), adapter.get("task_type")
        shown["peft"] = {"base_model_name_or_path": base, "task_type": task}
    # Files may hold anything; the Hub takes what is of the right kind.
    card = {name: value for name, value in (card or {}).items() if name not in TEXTS or isinstance(value, str)}
    library = card.get("library_name") or ("peft" if adapter else "transformers" if "model_type" in config else None)
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    task = card.get("pipeline_tag") or next((task for end, task in TASKS.items() if architecture.endswith(end)), None)
    formats = [name for name in ("safetensors", "gguf", "onnx") if any(path.endswith(f".{name}") for path in files)]
    custom = "custom_code" if "auto_map" in config else None
    found = [library, *formats, config.get("model_type"), task, *tags, custom, "region:us"]
    return {
        "modelId": repository.id,
        "library_name": library,
        "pipeline_tag": task,
        "tags": list(dict.fromkeys(tag for tag in found if tag and isinstance(tag, str))),
        "config": shown or None,
        "safetensors": _parameters(files),
        "baseModels": card.get("base_model"),
        "spaces": [],
    }


def _card_tags(card: dict[str, Any] | None) -> list[str]:
    def listed(name: str) -> list[str]:
        value = (card or {}).get(name) or []
        return [str(item) for item in (value if isinstance(value, list) else [value])]

    tags = listed("tags") + listed("language")
    for name, prefix in (("license", "license"), ("datasets", "dataset"), ("base_model", "base_model")):
        tags += [f"{prefix}:{value}" for value in listed(name)]
    for name in ("task_categories", "size_categories"):
        tags += [f"{name}:{value}" for value in listed(name)]
    return list(dict.fromkeys(tags))


def _parameters(files: Mapping[str, File]) -> dict[str, Any] | None:
    """Parameters by dtype, from model.safetensors or the parts that its index names."""
    index = _json(files, "model.safetensors.index.json")
    names = sorted(set(index.get("weight_map", {}).values())) if index else ["model.safetensors"]
    count: Counter[str] = Counter()
    for name in names:
        if name not in files:
            return None
        data = files[name].data
        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        except ValueError:
            return None
        for tensor, entry in header.items():
            if tensor != "__metadata__":
                parameters = 1
                for size in entry["shape"]:
                    parameters *= size
                count[entry["dtype"]] += parameters
    return {"parameters": dict(count), "total": count.total()}


def _sibling(path: str, file: File, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    about: dict[str, Any] = {"rfilename": path, "size": len(file.data), "blobId": file.blob_id}
    if file.lfs:
        about["lfs"] = {"sha256": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
    return about


def _json(files: Mapping[str, File], path: str) -> dict[str, Any]:
    """{} for a file that is missing or holds something else."""
    try:
        found = json.loads(files[path].data)
    except (KeyError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
