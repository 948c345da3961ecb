"""Which engine runs a checkpoint: the one its entry names, or the reference where that one cannot run here.

A fast engine says by itself what it needs (`why_not`). Where a library of it is missing or broken it cannot even be
imported, and so cannot say anything: therefore it stands here which engine takes its place.
"""

from __future__ import annotations

import importlib
import logging
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import Protocol

from shared.settings import Settings

log = logging.getLogger(__name__)

REFERENCE = {
    "batched_causal_lm": "causal_lm",
    "batched_encoder": "sentence_encoder",
    "batched_marian": "marian",
    "batched_seq2seq": "seq2seq",
}
"""Fast engines, and what runs their checkpoints where they cannot."""


class Runs(Protocol):
    """A checkpoint or an adapter."""

    @property
    def id(self) -> str: ...
    @property
    def engine(self) -> str: ...


def engine_module(wanted: Runs) -> ModuleType:
    """The module of `shared.engines` that runs this checkpoint: it has `load` and `memory_bytes`."""
    return _module(wanted.engine)[0]


def slower_here(checkpoints: Iterable[Runs], settings: Settings) -> dict[str, list[str]]:
    """By each reason, the ids of the checkpoints that the reference runs although their entries name a fast engine.

    Imports their engines, and PyTorch with them.
    """
    found = defaultdict(list)
    for checkpoint in checkpoints:
        if checkpoint.engine in REFERENCE and (reason := _why_not(checkpoint.engine, settings)):
            found[reason].append(checkpoint.id)
    return dict(found)


def _why_not(engine: str, settings: Settings) -> str:
    module, broken = _module(engine)
    return broken or module.why_not(settings)


@cache
def _module(engine: str) -> tuple[ModuleType, str]:
    """The engine's module, or the reference's and why. Found out once: a broken library is no sooner there again."""
    try:
        return importlib.import_module(f"shared.engines.{engine}"), ""
    except Exception as error:  # a broken library may raise anything: OSError, RuntimeError, ImportError
        if engine not in REFERENCE:
            raise
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        reason = f"the library {missing} is not installed" if missing else f"its libraries do not work here ({error})"
        log.warning("the engine %s cannot run here: %s", engine, reason, exc_info=not missing)
        return importlib.import_module(f"shared.engines.{REFERENCE[engine]}"), reason
