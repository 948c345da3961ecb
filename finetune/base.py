"""The checkpoint a recipe starts from: found in the catalog, brought here where it is missing, ready to read."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.checkpoints.catalog import Checkpoint, HubSource
from shared.checkpoints.weights import verified_folder
from shared.engines.choice import engine_module
from shared.events import Progress, result_of
from shared.fetching import hub_models
from shared.serving import runtime
from shared.serving.context import Context
from shared.serving.runtime import Runtime
from shared.settings import Settings


@dataclass(frozen=True)
class Base:
    """`folder` is in Hugging Face's format: safetensors, config, tokenizer."""

    checkpoint: Checkpoint
    folder: Path

    @property
    def published_as(self) -> str:
        """Id of the repository that holds these weights, for people who load the adapter elsewhere."""
        return getattr(self.checkpoint, "upstream", "") or self.checkpoint.id


@contextmanager
def shared_parts(settings: Settings) -> Iterator[Runtime]:
    """Catalog, cache and lane of the suite, for one run."""
    parts = runtime.start(settings)
    runtime.quiet_libraries()
    # It looks for faster kernels on a Hub, and says at every start that there are none.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
    try:
        yield parts
    finally:
        parts.lane.close()
        parts.cache.close()


def find_base(model: str, parts: Runtime, progress: Progress, revision: str = "") -> Base:
    """Raises `SuiteError`s for what is unknown, missing, gated or damaged.

    `revision` is the commit that was trained on; without it a repository's pinned or newest one counts.
    """
    checkpoint = next((c for c in parts.catalog if c.id == model), None)
    if checkpoint is None and "/" in model:
        checkpoint = hub_models.described(model, parts.hub)
    if checkpoint is None:
        checkpoint = parts.catalog.choose_by_id(model)
    if isinstance(checkpoint.source, HubSource):
        checkpoint = checkpoint.model_copy(update={"revision": revision or checkpoint.revision})
        checkpoint = _fetched(checkpoint, parts, progress)
        folder = parts.files.verified_folder(checkpoint, progress)
    else:
        folder = verified_folder(checkpoint, parts.settings, progress)
    module = engine_module(checkpoint)
    # A fast engine's own form is of no use here: what is trained are the weights as they were published.
    prepare = getattr(module, "published", None) or getattr(module, "prepare", None)
    return Base(checkpoint, prepare(checkpoint, folder, parts.settings, progress) if prepare else folder)


def _fetched(checkpoint: Checkpoint, parts: Runtime, progress: Progress) -> Checkpoint:
    fetching = Context(parts, "finetune", admin=True).ensure_on_disk(checkpoint, agreed=True)
    return result_of(fetching, lambda step: progress(step.what, step.done, step.total))
