"""Which process works in a folder: a lock that ends with it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ..engine.run_folder import HELD, LOCK, lock_now, opened_lock
from ..errors import UserError

CLAIM = '.claim'


@contextmanager
def claimed(folder: Path, name: str = CLAIM) -> Iterator[bool]:
    """Claim a folder until the block ends or this process does; yield whether no other process has it.

    The lock is POSIX's, as that of a run: the system ends it with the process, and machines that share the folder
    through NFS see it. Within one process it excludes nothing.

    Raises:
        UserError: where the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with opened_lock(folder / name) as stream:
        try:
            lock_now(stream)
        except OSError as error:
            if error.errno not in HELD:
                raise UserError(
                    f'{folder} lies on a file system without locks ({error.strerror}), by which processes that share '
                    'work know of each other: put the work dirs elsewhere.'
                ) from error
            yield False
            return
        stream.truncate(0)
        stream.write(f'process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}')
        stream.flush()
        try:
            yield True
        finally:
            stream.truncate(0)


def in_use(folder: Path, names: tuple[str, ...] = (CLAIM, LOCK)) -> bool:
    """Return whether another process has claimed a folder, or runs an experiment in it; reading it is enough.

    Never ask this of a folder that this process has claimed: POSIX would end its claim.
    """
    for file in (folder / name for name in names):
        if not file.is_file():
            continue
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                return True
        finally:
            os.close(handle)
    return False
