"""Whether engines compute with compiled kernels here."""

from __future__ import annotations

import logging
from functools import cache

from shared.settings import Settings

log = logging.getLogger(__name__)


def why_not(settings: Settings) -> str:
    """Why the reference computes instead, whatever the checkpoint; empty where the kernels can be used."""
    if settings.engines == "reference":
        return "SUITE_ENGINES is set to reference"
    return _import_kernels()


@cache
def _import_kernels() -> str:
    """Why they cannot be imported. Cached, so that the log says it once; a second attempt would fail as well."""
    try:
        import shared.engines.kernels.products  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # numba is in several parts, and llvmlite has a library
        reason = f"numba, which compiles it for this processor, is not installed or does not start ({error})"
        log.warning("models run on the reference engines, several times slower: %s", reason)
        return reason
    return ""
