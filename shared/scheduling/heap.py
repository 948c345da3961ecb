"""Memory that nobody uses any more: glibc keeps it in the process, and the memory budget would be a fiction."""

from __future__ import annotations

import ctypes
import gc
import sys

M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3
"""Of glibc's `mallopt`."""
LARGE = 1 << 20
"""Bytes of what is taken from the system by itself, and given back when it is freed."""


def release_freed_memory() -> None:
    """Gives freed pages back to the system."""
    gc.collect()
    trim_heap()


def hold_little_freed_memory() -> None:
    """Has all threads allocate from two places, and gives what is large back to the system as soon as it is freed.

    glibc gives each thread a place of its own, and pages freed in one are of no use to another: after a minute of
    64 clients, whose requests run in some ninety threads, the process held 2,040 MB so and 1,647 MB with two.
    And once a large array was freed, it takes the next one of that size from the heap, where something small may lie
    behind it and keep it: with all text Spaces used that was 60 MB.
    """
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_ARENA_MAX, 2)
            libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        except (OSError, AttributeError):  # musl
            return


def trim_heap() -> None:
    """Also now and then: after minutes of many clients at once glibc kept 350 MB that nobody used."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):  # musl
            return
