"""A trained checkpoint onto the Hub: what a reader needs and nothing else, then read back and compared.

Rows of data are not published, nor are paths of this machine: a data file's path becomes its name, and the samples of
the evaluation stay here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from finetune.base import Base
from finetune.data.split import Item
from finetune.recipe import check_recipe
from finetune.results.card import Subject, card
from finetune.results.hub import download, is_published
from finetune.results.loading import TRAINING, base_of, facts_of, load_trained
from finetune.results.loss_curve import draw
from finetune.run_folder import EVALUATION
from shared.checkpoints.adapters import is_repository
from shared.checkpoints.catalog import WheelSource
from shared.errors import InvalidInput, SuiteError
from shared.fetching.hub_errors import HubUnreachable
from shared.fetching.hub_writing import client, request
from shared.serving.runtime import Runtime

Say = Callable[[str], None]
Files = dict[str, bytes | Path]
"""By the name they get: content, or the file that holds it."""

METADATA = "suite_adapter.json"
PLOT = "loss.png"
GENERATED = {"README.md", "recipe.yaml", TRAINING, EVALUATION, PLOT}
"""Written for the occasion; the rest is copied."""
VOCABULARY_FILES = {"tokenizer.json", "vocab.json", "added_tokens.json"}
"""JSON that is words alone."""
PATH_KEYS = {"file", "audio_folder"}
MAYBE_PATH_KEYS = {"teacher", "metrics", "_name_or_path", "name_or_path"}
"""Keys of values that may be paths, or ids on the Hub."""


def publish(
    folder: Path, repo: str, runtime: Runtime, *, private: bool, say: Say = print, token: str | None = None
) -> str:
    """Uploads a result's folder as `user/name`, reads it back, and returns its address.

    A repository that is there gets a new commit, if it holds a checkpoint of ours of the same kind. `token` is used
    instead of the Hub client's own, and never stored. Raises `SuiteError`s that say what to do.
    """
    if not is_repository(repo):
        raise InvalidInput(f"{repo!r} is not of the form user/name", field="repo")
    api = client(token)
    facts = facts_of(folder)
    base = base_of(facts, runtime)
    files = contents(folder, repo, base, secrets=(api.token,), private_paths=paths_of(folder, runtime))
    before = prepare(api, repo, private, files, say)
    commit = upload(api, repo, files, before)
    say(f"uploaded {len(files)} files, {sum(map(size, files.values())) / 1e6:.1f} MB: {', '.join(sorted(files))}")
    with tempfile.TemporaryDirectory() as temporary:
        back = download(api, repo, commit, files, Path(temporary) / "pulled")
        verify(files, folder, back, runtime, say)
    return f"{api.endpoint}/{repo}"


# -- what goes there -------------------------------------------------------------------------------


def contents(folder: Path, repo: str, base: Base, *, secrets: tuple[str, ...], private_paths: tuple[str, ...]) -> Files:
    """Every file that is published. Raises `SuiteError` where something secret would be."""
    facts = without_paths(facts_of(folder), base, private_paths)
    evaluation = without_paths(_json(folder / EVALUATION), base, private_paths)
    if evaluation:
        evaluation.pop("samples", None)  # rows of somebody's data
    files: Files = {}
    for path in sorted(folder.iterdir()):
        if not is_published(path.name) or path.name in GENERATED:
            continue
        if path.suffix == ".json" and path.name not in VOCABULARY_FILES:
            files[path.name] = _as_json(without_paths(_json(path), base, private_paths))
        else:
            files[path.name] = path
    weights = [path for name, path in files.items() if name.endswith(".safetensors")]
    if not weights:
        raise SuiteError(f"{folder.name} holds no weights (safetensors); train it again", field="checkpoint")
    if plot := _plot(folder, facts["recipe"]["title"]):
        files[PLOT] = plot
    files[TRAINING] = _as_json(facts)
    files["recipe.yaml"] = check_recipe(facts["recipe"]).to_yaml().encode()
    if evaluation:
        files[EVALUATION] = _as_json(evaluation)
    subject = Subject(
        repo=repo,
        base=base.published_as,
        checkpoint=base.checkpoint.id,
        four_bits=four_bits(base),
        nbytes=sum(map(size, weights)),
        instruction=(_json(folder / METADATA) or {}).get("instruction") or "",
        plot=PLOT in files,
    )
    files["README.md"] = card(subject, facts, evaluation).encode()
    refuse_secrets(files, secrets, private_paths)
    return files


def without_paths(value: Any, base: Base, private_paths: tuple[str, ...], key: str = "") -> Any:
    """Without paths of this machine: of a data file its name stays, of a model its id."""
    if isinstance(value, dict):
        return {k: without_paths(v, base, private_paths, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [without_paths(one, base, private_paths, key) for one in value]
    if not isinstance(value, str):
        return value
    if key == "base_model_name_or_path":
        return base.published_as
    if key in PATH_KEYS:
        return _file_name(value)
    if key in MAYBE_PATH_KEYS and _is_path(value):
        return _file_name(value)
    for path in private_paths:
        value = value.replace(path, "…")
    return value


def paths_of(folder: Path, runtime: Runtime) -> tuple[str, ...]:
    """Folders that may be mentioned in what a run wrote, the longest first. Short ones could be anybody's words."""
    places = (folder, folder.resolve(), runtime.settings.cache_dir, Path.home(), Path.cwd())
    return tuple(sorted({str(place) for place in places if len(place.parts) > 2}, key=len, reverse=True))


def refuse_secrets(files: Mapping[str, bytes | Path], secrets: tuple[str, ...], private_paths: tuple[str, ...]) -> None:
    for name, content in files.items():
        data = content.read_bytes() if isinstance(content, Path) else content
        if any(secret.encode() in data for secret in secrets if secret):
            raise SuiteError(f"{name} holds the token for the Hub, so nothing was published; take it out")
        text = name.endswith((".json", ".yaml", ".md", ".jinja")) and name not in VOCABULARY_FILES
        if text and any(path.encode() in data for path in private_paths):
            raise SuiteError(f"{name} names a folder of this machine, so nothing was published; take it out")


def four_bits(base: Base) -> str:
    """Format of four-bit weights from which the base was read, such as `Q4_1`; else ""."""
    source = base.checkpoint.source
    names = [file.path for file in source.files.values()] if isinstance(source, WheelSource) else []
    found = [re.search(r"[.-](I?Q4\w*)\.gguf$", name, re.IGNORECASE) for name in names]
    return next((match[1] for match in found if match), "")


def _plot(folder: Path, title: str) -> bytes | None:
    if (folder / PLOT).is_file():
        return (folder / PLOT).read_bytes()
    entries = _json(folder / "loss.json")
    if not entries:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        draw(entries, Path(temporary) / PLOT, title)
        return (Path(temporary) / PLOT).read_bytes()


def _json(path: Path) -> Any:
    with contextlib.suppress(OSError):
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise SuiteError(
                f"{path.name} in {path.parent.name} is damaged: it is no JSON", field="checkpoint"
            ) from None
    return None


def _as_json(content: Any) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


def _is_path(value: str) -> bool:
    absolute = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    return absolute or value.startswith(("~", ".")) or Path(value).exists()


def _file_name(value: str) -> str:
    return PureWindowsPath(value).name if "\\" in value else PurePosixPath(value).name


def size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


# -- there and back --------------------------------------------------------------------------------


def prepare(api: Any, repo: str, private: bool, files: Files, say: Say) -> set[str]:
    """Makes the repository, or sees that one which is there may be changed. Returns the names of its files."""
    if not request(api, repo, lambda: api.repo_exists(repo)):
        request(api, repo, lambda: api.create_repo(repo, private=private, exist_ok=True))
        say(f"created {repo}, {'private' if private else 'for everybody'}")
        return set()
    info = request(api, repo, lambda: api.model_info(repo))
    there = {file.rfilename for file in info.siblings or []} - {".gitattributes"}
    if there - {"README.md"}:
        another = "another model" if TRAINING not in there else ""
        if not another and ("adapter_config.json" in there) != ("adapter_config.json" in files):
            another = "an adapter" if "adapter_config.json" in there else "a whole checkpoint"
        if another:
            raise InvalidInput(
                f"{repo} is there already and holds {another}; name another repository, or delete that one on the Hub",
                field="repo",
            )
    if bool(info.private) != private:
        request(api, repo, lambda: api.update_repo_settings(repo, private=private))
        say(f"{repo} is {'private' if private else 'for everybody'} from now on")
    return there


def upload(api: Any, repo: str, files: Files, before: set[str]) -> str:
    """One commit with exactly these files; of ours that are there, those which are no longer part are removed."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    gone = sorted(name for name in before - set(files) if is_published(name))

    def commit() -> Any:
        added = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        return api.create_commit(
            repo,
            operations=[*added, *(CommitOperationDelete(name) for name in gone)],
            commit_message="Update the checkpoint" if before else "Add the checkpoint",
        )

    return str(request(api, repo, commit).oid)


def verify(files: Files, folder: Path, back: Path, runtime: Runtime, say: Say) -> None:
    """What came back is what was sent, and computes the same. Raises `SuiteError`."""
    for name, content in files.items():
        sent = content.read_bytes() if isinstance(content, Path) else content
        if (back / name).read_bytes() != sent:
            raise HubUnreachable(f"{name} came back from the Hub with another content than was sent; publish it again")
    import torch

    ours, theirs = outputs(folder, runtime), outputs(back, runtime)
    if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
        raise SuiteError("what came back from the Hub answers in another way than what was sent; publish it again")
    kind = "adapter" if "adapter_config.json" in files else "checkpoint"
    say(
        f"verified: {len(files)} files came back byte for byte, and the pulled {kind} answers {len(ours)} rows as the "
        "local one does"
    )


def outputs(folder: Path, runtime: Runtime) -> Any:
    """Logits of a few rows, in float32. (rows, …)"""
    import torch

    trained = load_trained(folder, None, runtime)
    recipe, labels = trained.recipe, trained.labels
    with tempfile.TemporaryDirectory() as temporary:
        if recipe.task == "audio-classification":
            inputs = [_noise(Path(temporary))]
        else:
            inputs = [recipe.publishing.example or recipe.title, recipe.summary or recipe.name, "3 apples, 2 pears?"]
        items = [Item(text, labels[0] if labels else recipe.title) for text in inputs]
        rows = [trained.task.encode(item, trained.processor, recipe, labels) for item in items]
        batch = trained.task.collate(rows, trained.processor)
    with torch.inference_mode():
        logits = trained.model(**{k: v.to(trained.model.device) for k, v in batch.items()}).logits
    return logits.float().cpu()


def _noise(folder: Path) -> str:
    """A second of sound, the same every time."""
    import numpy as np
    import soundfile

    path = folder / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 16_000), 16_000)
    return os.fspath(path)
