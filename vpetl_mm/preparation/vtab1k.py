"""VTAB-1k: a folder for each of the 19 tasks with lists and ``images/``, in the usual layout."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..datasets.list_file import Sample
from ..datasets.vtab1k import LISTS, TASKS
from ..errors import UserError, tellable
from .found import Found
from .own_lists import LabelledFile, read_labelled_files
from .progress import warn

NAME, MEDIA_FOLDER = 'vtab1k', 'images'


def tasks(src: Path) -> list[str]:
    """Return the tasks that have a folder in ``src``, in the official order, and warn of the others.

    Raises:
        UserError: if no task has one.
    """
    if not src.is_dir():
        raise UserError(f'--src {tellable(src)} should be a folder with a folder for each task of VTAB-1k.')
    there = [task for task in TASKS if (src / task).is_dir()]
    missing = [task for task in TASKS if task not in there]
    if not there:
        lists = ', '.join(f'{name}.txt' for name in LISTS.values())
        raise UserError(
            f'--src {tellable(src)} has none of the 19 tasks of VTAB-1k: it should have folders such as cifar and '
            f'clevr_count, each with {lists} and {MEDIA_FOLDER}/.'
        )
    if missing:
        warn(f'{len(missing)} of the {len(TASKS)} tasks are missing from {src}: {", ".join(missing)}.')
    return there


def read(folder: Path, task: str) -> Found:
    """Read the lists of one task in its folder.

    Raises:
        UserError: if ``images/`` or a list is missing, a label is not one of the task's, or a path leads elsewhere.
    """
    if not (folder / MEDIA_FOLDER).is_dir():
        raise UserError(f'{tellable(folder)} has no folder {MEDIA_FOLDER}.')
    about = TASKS[task]
    files = {part: read_labelled_files(folder / f'{name}.txt') for part, name in LISTS.items()}
    lists = {part: [_sample(file, about.classes) for file in listed] for part, listed in files.items()}
    official = dict(train=800, val=200, test=about.test)
    others = {MEDIA_FOLDER: folder / MEDIA_FOLDER}
    classes = [str(label) for label in range(about.classes)]
    return Found('image', classes, lists, folder, others, official, files=dict(LISTS), media='.')


def _sample(file: LabelledFile, classes: int) -> Sample:
    if not (re.fullmatch('[0-9]{1,9}', file.label) and int(file.label) < classes):
        raise UserError(
            f'{file.where}: the label {tellable(repr(file.label))} is outside the classes 0 to {classes - 1}.'
        )
    path = os.path.normpath(file.path)
    if not path.startswith(f'{MEDIA_FOLDER}/'):
        raise UserError(f'{file.where}: {tellable(file.path)} should be a path in {MEDIA_FOLDER}/.')
    return Sample(path, int(file.label))
