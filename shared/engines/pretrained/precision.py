"""Which number format to compute in."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

HALF_PRECISION_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""x86 (AVX-512, AMX) and Arm names of the bfloat16 instructions, as Linux lists them."""


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself.

    Without such instructions half precision is emulated and many times slower than float32, so we ask first.
    Where the system does not say (macOS, Windows) the answer is no.
    """
    if platform.system() != "Linux":
        return False
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return bool(HALF_PRECISION_FLAGS & set(line.split()))
    except OSError:
        pass
    return False
