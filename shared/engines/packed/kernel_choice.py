"""Whether engines compute with compiled kernels here."""

from __future__ import annotations

from shared.settings import Settings


def why_not(settings: Settings) -> str:
    """Why the reference computes instead, whatever the checkpoint; empty where the kernels can be used."""
    if settings.engines == "reference":
        return "SUITE_ENGINES is set to reference"
    try:
        import shared.engines.kernels.products  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # numba is in several parts, and llvmlite has a library
        return f"numba, which compiles it for this processor, is not installed or does not start ({error})"
    return ""
