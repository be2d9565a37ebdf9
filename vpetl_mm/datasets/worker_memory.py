"""Keeps the memory of one clip for the next in a loader's worker process."""

from __future__ import annotations

import ctypes
import multiprocessing
from functools import cache

# of glibc's malloc.h: how much freed memory a process keeps, and from which size on a block is never kept
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT, ALONE = 64 << 20, 32 << 20


@cache
def keep_freed_memory(process: int) -> bool:
    """Make a worker process keep the memory of one clip for the next.

    glibc returns the few MB of each clip's frames to the system, which then hands out the next clip's memory page
    by page: a tenth to a quarter of the loading time. Keeping them takes no more memory than before. The training
    process is left as it is, and so are systems without glibc.

    Args:
        process: ``os.getpid()``, so that each process does this once, forked ones too.

    Returns:
        True if it was done.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if multiprocessing.parent_process() is None or mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT) and mallopt(M_MMAP_THRESHOLD, ALONE))
