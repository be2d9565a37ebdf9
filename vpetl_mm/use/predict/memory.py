"""Keeps the memory of one batch for the next, in a process that predicts on the CPU."""

from __future__ import annotations

import ctypes

# of glibc's malloc.h: how much freed memory a process keeps, and how many blocks are mapped one by one
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
ALL = 2**31 - 1


def keep_all_memory() -> bool:
    """Make this process keep freed memory until it ends.

    Without it glibc gives the memory of large activations back to the system, and the system time of a forward pass
    is higher (docs/performance.md). Only commands call it: a library does not decide this for its process.

    Returns:
        False without glibc, where it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, ALL))
