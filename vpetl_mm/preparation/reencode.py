"""Small H.264 copies of videos, made for fast random access in training."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rich.filesize import decimal

from ..errors import UserError, tellable
from .decode_speed import decode_speed
from .progress import progress
from .small_copy import is_finished, make_copy, tag_of
from .workers import Failed, each

PARTIAL = '.partial'  # the folder below the target of what is being written
SECONDS = 1800  # for one video
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the target's fault, not the video's


class _NoRoom(NamedTuple):
    reason: str


def copy_names(paths: Sequence[str]) -> dict[str, str]:
    """Where each video's copy goes: its own path with the suffix .mp4, which is added where two would meet.

    Args:
        paths: relative to the source, of any suffix; repeated ones count once.
    """
    names = {path: str(PurePosixPath(path).with_suffix('.mp4')) for path in paths}
    while True:
        count = Counter(names.values())
        met = [path for path, name in names.items() if count[name] > 1]
        if not met:
            return names
        names |= {path: f'{path}.mp4' for path in met}


def _check(paths: Sequence[str], source: Path, target: Path, short_side: int) -> None:
    if short_side < 16:
        raise UserError(f'The shorter side of re-encoded videos must be 16 pixels or more, got {short_side}.')
    if not source.is_dir():
        raise UserError(f'The folder of the videos, {source}, does not exist.')
    if target.resolve() == source.resolve():
        raise UserError(f'Re-encoded videos cannot be written over their sources, in {source}.')
    if not paths:
        raise UserError('There are no videos to re-encode.')
    for path in paths:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith('/') or '..' in parts or parts[0] == PARTIAL:
            raise UserError(f'The video {tellable(path)!r} does not lie in the folder of the videos, {source}.')


def _job(source: Path, target: Path, short_side: int, job: tuple[str, str]) -> bool | _NoRoom:
    """Make one copy unless it is there; whether it was made, or that the target takes no more."""
    path, name = job
    tag = tag_of(source / path, short_side)
    if is_finished(target / name, tag):
        return False
    try:
        make_copy(source / path, target / name, target / PARTIAL, short_side, tag)
    except OSError as error:
        if error.errno in NO_ROOM:
            return _NoRoom(os.strerror(error.errno))
        raise
    return True


def _tell_failed(failed: dict[str, str]) -> None:
    print(f'{len(failed)} videos cannot be decoded, and are left out:')
    for path, reason in sorted(failed.items())[:20]:
        print(f'  {tellable(path)} ({reason})')
    if len(failed) > 20:
        print(f'  and {len(failed) - 20} more')


def _tell(source: Path, target: Path, done: dict[str, str], made: int) -> None:
    pairs = [(source / path, target / name) for path, name in sorted(done.items())]
    sizes = [sum(file.stat().st_size for file in files) for files in zip(*pairs, strict=True)]
    print(
        f'{made:,} videos re-encoded, {len(done) - made:,} were there; {decimal(sizes[0])}, now {decimal(sizes[1])}'
    )
    speed = decode_speed(pairs)
    if speed:
        print(f'decode speed: {speed}')


def reencode(paths: Sequence[str], source: Path, target: Path, short_side: int, workers: int) -> list[str]:
    """Make a small copy of every video; the names of those that cannot be decoded are printed.

    A copy is written beside, in a folder of the target's, and renamed when it is whole. One that is there, from
    the same source and with the same settings, is kept, so that an interrupted call goes on where it was.
    At the end, the decode speed before and after is printed.

    Args:
        paths: of the videos, relative to ``source``.
        source: their folder.
        target: the folder to write to, with the same folders below.
        short_side: pixels of the copies' shorter side; smaller videos keep their size.
        workers: processes.

    Returns:
        the copies' paths, relative to ``target``, in the order of ``paths``; '' for a video that failed.

    Raises:
        UserError: for a setting or a path that cannot be, when no video can be decoded, or when the disk is full.
    """
    source, target = Path(source), Path(target)
    _check(paths, source, target, short_side)
    names = copy_names(paths)
    shutil.rmtree(target / PARTIAL, ignore_errors=True)  # what a killed call was writing
    try:
        (target / PARTIAL).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{target} cannot be written to ({error.strerror}).') from error
    failed: dict[str, str] = {}
    made = 0
    task = partial(_job, source, target, short_side)
    with progress('Re-encoding', len(names)) as advance:
        for (path, _), result in each(task, names.items(), workers, SECONDS):
            advance(1)
            if isinstance(result, _NoRoom):
                raise UserError(f'{target} takes no more files ({result.reason}); the same command then goes on.')
            if isinstance(result, Failed):
                failed[path] = result.reason
            else:
                made += result
    shutil.rmtree(target / PARTIAL, ignore_errors=True)
    if failed:
        _tell_failed(failed)
    if len(failed) == len(names):
        path, reason = next(iter(failed.items()))
        raise UserError(f'None of the videos in {source} can be decoded; the first: {tellable(path)} ({reason}).')
    _tell(source, target, {p: n for p, n in names.items() if p not in failed}, made)
    return ['' if path in failed else names[path] for path in paths]
