"""An adapter on disk: a folder that peft wrote, with our `suite_adapter.json` where our own recipes made it.

Reading describes it and refuses what cannot be used. It needs neither torch nor peft, and reads no weights but for
their names, shapes and hash.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.checkpoints.catalog import Checkpoint, Task
from shared.checkpoints.peft_config import Method, PeftConfig, parsed
from shared.checkpoints.repository import ADAPTER_CONFIG as CONFIG
from shared.checkpoints.repository import ADAPTER_PICKLE as PICKLE
from shared.checkpoints.repository import ADAPTER_WEIGHTS as WEIGHTS
from shared.checkpoints.weights import sha256_of
from shared.errors import UnknownCheckpoint, WeightsCorrupt

METADATA_FILE, EVALUATION = "suite_adapter.json", "evaluation.json"
LARGEST_JSON = 5 * 2**20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")

LONGEST_METRIC = 120

Shape = tuple[int, ...]


class AdapterMetadata(BaseModel):
    """`suite_adapter.json`: title, task, labels and prompt, which peft's config has no field for."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    title: str = Field("", max_length=80)
    checkpoint: str = Field("", max_length=200)
    """Catalog id of the base."""
    task: Task | None = None
    labels: tuple[str, ...] | None = Field(None, max_length=1000)
    instruction: str | None = Field(None, max_length=4000)
    """The prompt it was trained with, shown to people."""
    example: str | None = Field(None, max_length=20_000)


class Adapter(BaseModel):
    """What is known of an adapter. `name` is what follows the `+` in a request's `model`."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    title: str
    bases: tuple[str, ...]
    """Catalog ids of the checkpoints it fits, the usual one first: copies of one model."""
    task: Task
    classifies: bool
    """Whether it has a head of its own that gives one logit a label."""
    labels: tuple[str, ...] = ()
    instruction: str = ""
    example: str = ""
    method: Method
    rank: int = 0
    nbytes: int
    """Of its weights file."""
    memory: int
    """Bytes of its weights in memory, where they are float32."""
    revision: str
    """The commit of its repository, or the beginning of a hash of its content."""
    digest: str = ""
    """SHA-256 of its weights file; "" before that is downloaded."""
    metric: str = ""
    """Its evaluation in one line."""
    config: PeftConfig
    path: Path | None = None
    """Its folder; None before it is downloaded."""
    repository: Checkpoint | None = None
    """How the files of a repository are fetched; None for a folder of this machine."""

    # `shared.scheduling.cache_entry.Loadable`, the model cache's protocol:
    engine: str = "adapters.deltas"

    @property
    def id(self) -> str:
        """As it is called in a request's `model`, with its usual base."""
        return f"{self.bases[0]}+{self.name}"

    @property
    def folder(self) -> str:
        """Its key in the model cache; it changes with the weights, so the cache never gives out old ones for new
        ones."""
        return f"adapter {self.name}@{self.revision}"

    @property
    def size(self) -> str:
        return f"{self.nbytes / 1e6:.1f} MB"

    @property
    def described(self) -> str:
        return f"{self.method}, rank {self.rank}" if self.rank else self.method


def read_folder(path: Path, known: Mapping[str, Checkpoint], name: str = "", **more: Any) -> Adapter:
    """The adapter in a folder; `known` are the checkpoints by id, `more` are fields that the folder does not say.

    Raises `UnknownCheckpoint` (field `model`) where the folder or its base is not there, `WeightsCorrupt` for one that
    is damaged or cannot be computed here.
    """
    name = name or path.name
    if not path.is_dir():
        raise UnknownCheckpoint(f"there is no folder {path}; name one that holds {CONFIG}", field="model")
    weights = path / WEIGHTS
    if not weights.is_file():
        if (path / PICKLE).is_file():
            raise WeightsCorrupt(
                f"the weights of {name} come as a pickle ({PICKLE}), which can run code while it is read; only "
                f"{WEIGHTS} is loaded. Save it anew with save_pretrained(…, safe_serialization=True)"
            )
        raise WeightsCorrupt(f"{name} has no {WEIGHTS}, so it is no adapter, or not a whole one; bring that file")
    if not (path / CONFIG).is_file():
        raise WeightsCorrupt(f"{name} has no {CONFIG}, which says how its weights are used; bring that file")
    config = parsed(_small(path / CONFIG, name), name)
    status = weights.stat()
    shapes, digest = _weights(weights, status.st_size, status.st_mtime_ns)
    metadata = parsed_metadata(_small(path / METADATA_FILE, name), name)
    fields = {
        "nbytes": status.st_size,
        "memory": 4 * sum(math.prod(shape) for shape in shapes.values()),
        "digest": digest,
        "revision": revision_of(digest, *(_small(path / file, name) for file in (CONFIG, METADATA_FILE))),
        "metric": _metric(_small(path / EVALUATION, name)),
        "path": path,
        **more,
    }
    return described(name, config, metadata, shapes, known, **fields)


def revision_of(digest: str, *descriptions: bytes) -> str:
    """Of a folder: what its weights and their descriptions are, in twelve digits."""
    return hashlib.sha256(b"\0".join([digest.encode(), *descriptions])).hexdigest()[:12]


def described(
    name: str,
    config: PeftConfig,
    metadata: AdapterMetadata,
    shapes: Mapping[str, Shape],
    known: Mapping[str, Checkpoint],
    **more: Any,
) -> Adapter:
    """Puts together what peft's config, our file and the shapes of the weights say. Without `shapes` they are not read.

    Raises as `read_folder` does.
    """
    bases = _bases(name, config, metadata, known)
    kind = known[bases[0]].kind
    classifies = config.task_type == "SEQ_CLS" or (not config.task_type and "classifier" in config.modules_to_save)
    heads = [shape[0] for key, shape in shapes.items() if re.search(r"\.(classifier|score)\.weight$", key) and shape]
    labels = metadata.labels or ()
    if classifies and heads:
        labels = labels or tuple(f"LABEL_{i}" for i in range(heads[0]))
        if len(labels) != heads[0]:
            raise WeightsCorrupt(f"{name} names {len(labels)} labels in {METADATA_FILE}, and its head has {heads[0]}")
        if len(set(map(str.lower, labels))) != len(labels):
            raise WeightsCorrupt(f"{name} names a label twice in {METADATA_FILE}: {', '.join(labels)[:200]}")
    usual: Task = "text-classification" if classifies else _task_of(known[bases[0]], kind)
    ranks = [shape[0] for key, shape in shapes.items() if key.endswith("lora_A.weight") and shape]
    return Adapter(
        name=name,
        title=metadata.title.strip() or name,
        bases=bases,
        task=metadata.task or usual,
        classifies=classifies,
        labels=labels,
        instruction=metadata.instruction or "",
        example=metadata.example or "",
        method=config.method,
        rank=max(ranks, default=config.rank),
        config=config,
        **more,
    )


def _task_of(base: Checkpoint, kind: str) -> Task:
    return "text-generation" if kind == "causal-lm" else base.tasks[0] if base.tasks else "text-generation"


def _bases(
    name: str, config: PeftConfig, metadata: AdapterMetadata, known: Mapping[str, Checkpoint]
) -> tuple[str, ...]:
    """Ids of the checkpoints it was trained on, or of copies of that: by our file, else by what peft noted."""
    wanted = (metadata.checkpoint or config.base).strip()
    ends = {wanted.lower(), Path(wanted).name.lower()} if wanted else set()
    # A folder of ours bears id and revision; any other path says nothing that could be relied upon.
    exact = [c for c in known.values() if wanted.lower() in (c.id.lower(), c.repository.lower())]
    found = exact or [c for c in known.values() if c.folder.lower() in ends]
    if not found:
        raise UnknownCheckpoint(
            f"{name} is an adapter for {wanted[:200] or 'a base that it does not name'}, which is no checkpoint of "
            "this suite; add that first",
            field="model",
        )
    copies = [c for c in known.values() if c.repository and c.repository == found[0].repository and c not in found]
    return tuple(c.id for c in [*found, *copies])


def _small(path: Path, name: str) -> bytes:
    """The content of a JSON file, "" where there is none."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise WeightsCorrupt(f"the {path.name} of {name} is far too large for one")
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise WeightsCorrupt(f"{path.name} of {name} cannot be read: {error.strerror}") from None


def parsed_metadata(content: bytes, name: str) -> AdapterMetadata:
    """The content of `METADATA_FILE`; empty where there is none. Raises `WeightsCorrupt`."""
    if not content:
        return AdapterMetadata.model_validate({})
    try:
        return AdapterMetadata.model_validate_json(content)
    except ValidationError as errors:
        first = errors.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        where = f" at {place}" if place else ""
        raise WeightsCorrupt(f"{METADATA_FILE} of {name} is wrong{where}: {first['msg']}") from None


def _metric(content: bytes) -> str:
    """One line of an evaluation: its metric before and after."""
    try:
        found = json.loads(content)
        name, before, after = (found.get(key) for key in ("metric", "base", "tuned"))
        if isinstance(after, int | float):
            was = f" (base {before:.3g})" if isinstance(before, int | float) else ""
            return f"{name} {after:.3g}{was}"[:LONGEST_METRIC]
    except (ValueError, AttributeError, RecursionError):
        pass  # it is only shown beside the adapter
    return ""


@functools.lru_cache(maxsize=64)
def _weights(path: Path, size: int, changed: int) -> tuple[dict[str, Shape], str]:
    """Shape of each tensor, and the file's SHA-256. `size` and `changed` tell an altered file from the one read before.

    Raises `WeightsCorrupt`: the library compares the header with the length of the file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsCorrupt(
            f"{path.name} of {path.parent.name} is damaged or cut short ({str(error)[:100]}); bring it anew"
        ) from None
    return shapes, sha256_of(path)
