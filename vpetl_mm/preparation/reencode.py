"""Makes small H.264 copies of videos for fast random access in training."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from rich.filesize import decimal

from ..errors import UserError, tellable
from .progress import progress
from .small_copy import is_finished, make_copy, tag_of
from .workers import Failed, each

SECONDS = 1800  # for one video
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the target's fault, not the video's


def copy_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the path of each video's copy: its own with the suffix .mp4, which is appended if two would collide."""
    names = {path: str(PurePosixPath(path).with_suffix('.mp4')) for path in paths}
    while len(count := Counter(names.values())) < len(names):
        names |= {path: f'{path}.mp4' for path, name in names.items() if count[name] > 1}
    return names


def _job(source: Path, target: Path, short_side: int, job: tuple[str, str]) -> bool | str:
    """Make one copy unless it exists; return whether it was made, or why the target takes no more files."""
    path, name = job
    tag = tag_of(source / path, short_side)
    if is_finished(target / name, tag):
        return False
    try:
        make_copy(source / path, target / name, short_side, tag)
    except OSError as error:
        if error.errno in NO_ROOM:
            return os.strerror(error.errno)
        raise
    return True


def _tell_failed(failed: dict[str, str]) -> None:
    print(f'{len(failed)} videos cannot be decoded and are left out:')
    for path, reason in sorted(failed.items())[:20]:
        print(f'  {tellable(path)} ({reason})')
    if len(failed) > 20:
        print(f'  and {len(failed) - 20} more')


def _tell(source: Path, target: Path, done: dict[str, str], made: int) -> None:
    pairs = [(source / path, target / name) for path, name in sorted(done.items())]
    sizes = [sum(file.stat().st_size for file in files) for files in zip(*pairs, strict=True)]
    print(f'{made:,} videos re-encoded, {len(done) - made:,} existed; {decimal(sizes[0])}, now {decimal(sizes[1])}')


def reencode(paths: Sequence[str], source: Path, target: Path, short_side: int, workers: int) -> list[str]:
    """Make a small copy of every video, and print the names of those that cannot be decoded.

    A copy from the same source and with the same settings is kept, so that an interrupted call goes on where it
    stopped.

    Args:
        paths: paths of the videos, relative to ``source`` and below it.
        source: their folder.
        target: another folder, which gets the same folders below.
        short_side: pixels of the copies' shorter side, at least 16; smaller videos keep their size.
        workers: processes.

    Returns:
        the copies' paths, relative to ``target``, in the order of ``paths``; '' for a video that failed.

    Raises:
        UserError: if no video can be decoded, or the disk is full.
    """
    names = copy_names(paths)
    target.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    made = 0
    task = partial(_job, source, target, short_side)
    with progress('Re-encoding', len(names)) as advance:
        for (path, _), result in each(task, names.items(), workers, SECONDS):
            advance(1)
            if isinstance(result, str):
                raise UserError(f'{target} takes no more files ({result}); make room and repeat the command.')
            if isinstance(result, Failed):
                failed[path] = result.reason
            else:
                made += result
    for left in target.rglob('*.mp4.partial'):  # by a killed call or a crashed worker
        left.unlink()
    if failed:
        _tell_failed(failed)
    if len(failed) == len(names):
        path, reason = next(iter(failed.items()))
        raise UserError(f'None of the videos in {source} can be decoded; the first: {tellable(path)} ({reason}).')
    _tell(source, target, {p: n for p, n in names.items() if p not in failed}, made)
    return ['' if path in failed else names[path] for path in paths]
