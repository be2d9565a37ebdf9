"""VTAB-1k: a folder for each of the 19 tasks, with lists and ``images/``, as others have made it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..datasets.vtab1k import LISTS, TASKS
from ..errors import UserError, tellable
from .found import Found
from .lists import Lists, Sample
from .own_lists import Row, read_rows
from .progress import warn

NAME, MEDIA_FOLDER = 'vtab1k', 'images'


def tasks(src: Path) -> list[str]:
    """The tasks that have a folder in ``src``, in the official order; the missing ones are told.

    Raises:
        UserError: when there is none.
    """
    if not src.is_dir():
        raise UserError(f'--src {tellable(src)} should be the folder with a folder for each task of VTAB-1k.')
    there = [task for task in TASKS if (src / task).is_dir()]
    missing = [task for task in TASKS if task not in there]
    if not there:
        lists = ', '.join(f'{name}.txt' for name in LISTS.values())
        raise UserError(
            f'--src {tellable(src)} has none of the 19 tasks of VTAB-1k: it should have folders such as cifar and '
            f'clevr_count, each with {lists} and {MEDIA_FOLDER}/.'
        )
    if missing:
        warn(f'{len(missing)} of the {len(TASKS)} tasks are missing from {tellable(src)}: {", ".join(missing)}.')
    return there


def read(folder: Path, task: str) -> Found:
    """What the folder of one task holds.

    Raises:
        UserError: when ``images/`` or a list is missing, a label is none of the task's, or a path leads elsewhere.
    """
    if not (folder / MEDIA_FOLDER).is_dir():
        raise UserError(f'{tellable(folder)} has no folder {MEDIA_FOLDER}.')
    about = TASKS[task]
    rows = {part: read_rows(folder / f'{name}.txt') for part, name in LISTS.items()}
    lists: Lists = {part: [_sample(row, about.classes) for row in found] for part, found in rows.items()}
    official = dict(train=800, val=200, test=about.test)
    others = {MEDIA_FOLDER: folder / MEDIA_FOLDER}
    classes = [str(label) for label in range(about.classes)]
    return Found('image', classes, lists, folder, others, official, files=dict(LISTS), media='.')


def _sample(row: Row, classes: int) -> Sample:
    if not (re.fullmatch('[0-9]{1,9}', row.label) and int(row.label) < classes):
        raise UserError(
            f'{row.where}: the label {tellable(repr(row.label))} is outside the classes 0 to {classes - 1}.'
        )
    path = os.path.normpath(row.path)
    if not path.startswith(f'{MEDIA_FOLDER}/'):
        raise UserError(f'{row.where}: {tellable(row.path)} should be a path in {MEDIA_FOLDER}/.')
    return Sample(path, int(row.label))
