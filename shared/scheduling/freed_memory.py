"""Returns freed memory to the system. glibc keeps it in the process, and the memory budget would not hold."""

from __future__ import annotations

import ctypes
import gc
import sys

M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3
"""Of glibc's `mallopt`."""
LARGE = 1 << 20
"""An allocation of so many bytes is mapped by itself, and unmapped when it is freed."""


def release_freed_memory() -> None:
    """Collects garbage and returns freed pages to the system."""
    gc.collect()
    trim_heap()


def limit_malloc_arenas() -> None:
    """Has all threads share two malloc arenas, and returns large arrays to the system as soon as they are freed.

    By default glibc has an arena for each thread, and pages freed in one are of no use to another: after a minute of
    64 clients, whose requests run in some ninety threads, the process held 2,040 MB, and 1,647 MB with two arenas.
    glibc also raises its threshold for mapped arrays once one was freed: the next array of that size comes from the
    heap, where a small object behind it keeps its pages in use. With all text Spaces used that was 60 MB.
    """
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_ARENA_MAX, 2)
            libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        except (OSError, AttributeError):  # musl
            return


def trim_heap() -> None:
    """Returns the heap's freed pages to the system; after minutes of many clients glibc kept 350 MB of them."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):  # musl
            return
