"""Keeps the memory of one batch for the next, in a process that predicts on the CPU."""

from __future__ import annotations

import ctypes

# of glibc's malloc.h: how much freed memory a process keeps, and how many blocks are mapped one by one
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
ALL = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make this process keep all memory that it has had, until it ends.

    glibc returns activations, which are large, to the system, which then hands out zeroed memory page by page for the
    next layer: a quarter of a forward pass's time. It is for commands, as a library has no say in its process.

    Returns:
        False on a system without glibc, where nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, ALL))
