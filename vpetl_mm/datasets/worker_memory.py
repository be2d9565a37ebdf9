"""How a loader's worker process deals with the memory of clips."""

from __future__ import annotations

import ctypes
import multiprocessing
from functools import cache

# of glibc's malloc.h: how much freed memory stays with the process, and from which size on a block does not
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT, ALONE = 64 << 20, 32 << 20


@cache
def keep_freed_memory(process: int) -> bool:
    """Have a worker process keep the memory of one clip for the next.

    glibc gives the few MB of each clip's frames back to the system, which then hands out the next clip's page by
    page: a tenth to a quarter of the time that loading takes. A worker needs no more memory for keeping them. The
    training process is left as it is, and so are systems without glibc.

    Args:
        process: ``os.getpid()``: a process does this once, and not in the name of those that it forks.

    Returns:
        whether it was done.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if multiprocessing.parent_process() is None or mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT) and mallopt(M_MMAP_THRESHOLD, ALONE))
