"""How fast this machine streams through memory: the ceiling of decoding a row at a time."""

from __future__ import annotations

import time

BYTES = 512 * 2**20
"""Of the buffer that is read: many times any cache."""
TRIES = 5


def measure(threads: int, tries: int = TRIES) -> float:
    """Bytes read per second by so many threads: the best of several tries and of three ways of reading."""
    import torch

    torch.set_num_threads(threads)
    floats = torch.ones(BYTES // 4)
    matrix, vector = floats.view(-1, 4096), torch.ones(4096)
    wide = floats.view(torch.int64)
    best = 0.0
    for _ in range(tries):
        for read in (floats.sum, lambda: torch.mv(matrix, vector), lambda: wide.max()):
            begun = time.perf_counter()
            read()
            best = max(best, BYTES / (time.perf_counter() - begun))
    return best


class Memory:
    """What the worker calls."""

    def facts(self) -> dict[str, str]:
        return {}

    def stream(self, threads: int) -> float:
        return measure(threads)


CONTESTANTS = {"memory": Memory}
