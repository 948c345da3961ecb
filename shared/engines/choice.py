"""Which engine runs a checkpoint: the one its entry names, or the reference where that one cannot run here.

An engine's name is its module below `shared.engines`: `decoders.batched`. A fast engine says by itself what it needs
(`why_not`). Where one of its libraries is missing or broken it cannot be imported, and so cannot say anything:
`decoders.reference` then takes the place of `decoders.batched`, and so in each family.
"""

from __future__ import annotations

import importlib
import logging
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Protocol

from shared.settings import Settings

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]

BATCHED, REFERENCE = ".batched", ".reference"
"""Endings of a family's fast engine and of the one that runs its checkpoints where that one cannot."""


class Runs(Protocol):
    """A checkpoint or an adapter."""

    @property
    def id(self) -> str: ...
    @property
    def engine(self) -> str: ...


def engine_module(wanted: Runs) -> ModuleType:
    """The module of `shared.engines` that runs this checkpoint: it has `load` and `memory_bytes`."""
    return _module(wanted.engine)[0]


def reference_of(engine: str) -> str:
    """The reference of a family's fast engine; any other engine is its own."""
    return engine.removesuffix(BATCHED) + REFERENCE if engine.endswith(BATCHED) else engine


def source_of(engine: str, root: Path = ROOT) -> Path | None:
    """The engine's file in the project at `root`; None where it is not there, as in a Space assembled without it."""
    file = root.joinpath("shared", "engines", *engine.split(".")).with_suffix(".py")
    return file if file.is_file() else None


def slower_here(checkpoints: Iterable[Runs], settings: Settings) -> dict[str, list[str]]:
    """By each reason, the ids of the checkpoints that the reference runs although their entries name a fast engine.

    Imports their engines, and PyTorch with them.
    """
    found = defaultdict(list)
    for checkpoint in checkpoints:
        if checkpoint.engine.endswith(BATCHED) and (reason := _why_not(checkpoint.engine, settings)):
            found[reason].append(checkpoint.id)
    return dict(found)


def _why_not(engine: str, settings: Settings) -> str:
    module, broken = _module(engine)
    return broken or module.why_not(settings)


@cache
def _module(engine: str) -> tuple[ModuleType, str]:
    """The engine's module, or the reference's and why. Cached: a library that failed to import will fail again."""
    try:
        return importlib.import_module(f"shared.engines.{engine}"), ""
    except Exception as error:  # a broken library may raise anything: OSError, RuntimeError, ImportError
        if not engine.endswith(BATCHED):
            raise
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        reason = f"the library {missing} is not installed" if missing else f"its libraries do not work here ({error})"
        log.warning("the engine %s cannot run here: %s", engine, reason, exc_info=not missing)
        return importlib.import_module(f"shared.engines.{reference_of(engine)}"), reason
