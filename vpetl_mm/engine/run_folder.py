"""The folder of a run: which files are the run's, and a lock so that one run at a time writes into it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from mmengine import Config

from ..errors import UserError
from .accuracy import COLUMNS
from .full_state import last_full_state
from .launch import rank_and_world_size
from .record import FORMAT

LOCK = '.lock'
HELD = (errno.EACCES, errno.EAGAIN)  # another process holds a lock
BEST = re.compile(r'best_[\w.-]+_epoch_(\d+)\.pth')
CHECKPOINT = re.compile(rf'(adapter_)?epoch_\d+\.pth|{BEST.pattern}')
RESULT = re.compile(r'result(_[\w.-]+)?\.json')
PREDICTIONS = re.compile(r'predictions(_[\w.-]+)?\.csv')
REPORT = re.compile(r'report(_[\w.-]+)?\.html')
REPORT_START = '<!-- vpetl_mm report -->'
BUNDLE = '"vpetl_mm_bundle"'  # in the header of what a run leaves as <config>.safetensors
LOGS = re.compile(r'\d{8}_\d{6}')
LOG_FILE = re.compile(r'\d{8}_\d{6}\.(log|json)|scalars\.json|config\.py|events\.out\.tfevents\..+')
HEADER = ','.join(COLUMNS)


def files_of_run(work_dir: Path) -> list[Path]:
    """Return the checkpoints and results of a run in a folder, whatever else is there."""
    there = sorted(work_dir.iterdir()) if work_dir.is_dir() else []
    return [p for p in there if p.is_file() and _is_kept(p, p.name)]


def _is_kept(path: Path, name: str) -> bool:
    return bool(CHECKPOINT.fullmatch(name)) or (bool(RESULT.fullmatch(name)) and FORMAT in _start(path))


def _start(path: Path) -> str:
    with open(path, encoding='utf-8', errors='replace') as stream:
        return stream.read(200)


def check_links(cfg: Config) -> None:
    """Raise :class:`UserError` if a run or a test would write through a link, into what may be any file."""
    written = (LOCK, 'last_checkpoint', Path(cfg.filename or '').name)
    for path in Path(cfg.work_dir).glob('*'):
        if path.is_symlink() and (path.name in written or path.suffix == '.partial'):
            raise UserError(f'{path} is a link, which writing would follow: remove it, or use another --work-dir.')


def check_folder(cfg: Config) -> None:
    """Raise :class:`UserError` if another run is using the work dir, or a new one would mix with an older."""
    work_dir = Path(cfg.work_dir)
    check_links(cfg)
    if rank_and_world_size(cfg)[0] == 0 and (work_dir / LOCK).is_file():
        with opened_lock(work_dir / LOCK) as stream:
            take_lock(stream, work_dir)
    _check_run(cfg)


def _check_run(cfg: Config) -> None:
    work_dir, state = Path(cfg.work_dir), cfg.get('load_from')
    inside = state is not None and Path(state).resolve().parent == work_dir.resolve()
    run = [] if inside else files_of_run(work_dir)
    if run and not cfg.get('overwrite'):
        names = ', '.join(p.name for p in run[:3]) + (', ...' if run[3:] else '')
        goes_on = '' if state else '--resume continues it, '
        raise UserError(
            f'{work_dir} holds another run ({names}): {goes_on}--overwrite removes it and starts again, and '
            '--work-dir puts this run elsewhere.'
        )
    if inside and cfg.get('overwrite'):
        raise UserError(f'--overwrite would remove {state}, which --resume names: leave one of them out.')
    if inside and cfg.get('resume_with') == 'new' and (last := last_full_state(work_dir)[0]).name != Path(state).name:
        raise UserError(
            f'{last} follows {state} and has the old settings: to continue from {state} with new ones, use another '
            '--work-dir.'
        )


@contextmanager
def locked(cfg: Config) -> Iterator[str | None]:
    """Lock the work dir until this run ends or is killed; on rank 0 alone.

    With ``cfg.overwrite``, remove the files of an older run first. The lock is POSIX's: the system removes it with
    the process, the loader's workers do not inherit it, and machines that share the folder through NFS see it.

    Yields:
        A warning, or None.

    Raises:
        UserError: when another process is using the folder, or another run has come in between.
    """
    if rank_and_world_size(cfg)[0]:
        yield None
        return
    work_dir = Path(cfg.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    with opened_lock(work_dir / LOCK) as stream:
        warning = take_lock(stream, work_dir)
        stream.truncate(0)
        stream.write(f'process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}')
        stream.flush()
        try:
            _check_run(cfg)
            if cfg.get('overwrite'):
                remove_run(work_dir)
            yield warning
        finally:
            stream.truncate(0)


def opened_lock(lock: Path) -> IO[str]:
    """Open a lock's file, or create it. A link, which could lead to any file, is not followed."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        return open(handle, 'a+', encoding='utf-8', errors='replace')
    except OSError as error:
        raise UserError(f'{lock} cannot be opened ({error.strerror}); remove it or set --work-dir.') from error


def take_lock(stream: IO[str], work_dir: Path) -> str | None:
    """Lock the open file until it is closed; return a warning if that proves less than it should.

    Raises:
        UserError: when another process holds the lock.
    """
    stream.seek(0)
    holder = ''.join(c for c in stream.read(200) if c.isprintable())
    try:
        lock_now(stream)
    except OSError as error:
        if error.errno not in HELD:
            return f'{work_dir} cannot be locked ({error.strerror}): make sure that no other run writes into it.'
        raise UserError(
            f'{work_dir} is in use by {holder or "another process"}: wait for it, or use another --work-dir.'
        ) from error
    if holder and f' on {socket.gethostname()} ' not in holder:
        return f'{work_dir} was last used by {holder}, which did not end by itself: make sure that it has ended.'
    return None


def lock_now(stream: IO[str]) -> None:
    """Lock an open file until it is closed; a process that only looks at it is given time to close it.

    Raises:
        OSError: with one of :data:`HELD` when another process holds the lock, with another where there are none.
    """
    for tries_left in (2, 1, 0):
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in HELD or not tries_left:
                raise
        time.sleep(0.02)


def remove_run(work_dir: Path) -> None:
    """Remove the files that a run has written, but no others, nor folders that hold others."""
    for path in list(work_dir.iterdir()):
        name = re.sub(r'(\.\d+)?\.partial$', '', path.name)
        if path.is_dir() and not path.is_symlink() and LOGS.fullmatch(name):
            _remove_logs(path)
        elif path.is_file() and (
            _is_kept(path, name)
            or name == 'last_checkpoint'
            or (PREDICTIONS.fullmatch(name) and _start(path).startswith(HEADER))
            or (REPORT.fullmatch(name) and REPORT_START in _start(path))
            or (_is_of_config(work_dir / name) and (name != path.name or BUNDLE in _start(path)))
        ):
            path.unlink()


def _is_of_config(path: Path) -> bool:
    return path.suffix == '.safetensors' and path.with_suffix('.py').is_file()


def _remove_logs(folder: Path) -> None:
    for part in (folder / 'vis_data', folder):
        if part.is_symlink():  # to files that may be anybody's
            continue
        for path in list(part.glob('*')):
            if LOG_FILE.fullmatch(path.name) and not path.is_dir():
                path.unlink()
        if part.is_dir() and not any(part.iterdir()):
            part.rmdir()
