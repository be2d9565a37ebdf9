"""Finds the problems of a data set's lists, given the findings of opening its files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .inspection import WHOLE
from .journal import Finding

KINDS = {
    'missing': 'not on disk',
    'unreadable': 'cannot be read',
    'cut_short': 'end early',
    'too_short': 'too short',
    'bad_line': 'lines not of the form "path label"',
    'bad_label': 'labels outside the classes',
    'listed_twice': 'listed twice in a list',
    'in_two_lists': 'in two lists',
    'same_content': 'same content in two lists or with two labels',
    'parts': 'train and val are not trainval',
    'count': 'counts that differ from the official ones',
    'empty_class': 'classes without a sample',
}


class Line(NamedTuple):
    """A line of a list.

    Args:
        path: path of the file below the media folder, or index in an array; empty if the line cannot be used.
        label: label from 0; -1 if there is none.
        text: the line itself.
    """

    path: str
    label: int
    text: str


class Problem(NamedTuple):
    """A problem of a list or a file.

    Args:
        kind: a key of ``KINDS``.
        where: the list or lists.
        path: the file. Defaults to '', for a problem of a whole list.
        detail: further information. Defaults to ''.
    """

    kind: str
    where: str
    path: str = ''
    detail: str = ''


Lists = dict[str, list[Line]]


def of_file(finding: Finding | None, min_frames: int) -> tuple[str, str] | None:
    """Return the problem of a file as (kind, detail), or None; a finding of None means a missing file."""
    if finding is None:
        return 'missing', ''
    if finding.problem:
        return 'unreadable', finding.problem
    if finding.frames is not None:
        if finding.promised and finding.frames < WHOLE * finding.promised:
            return 'cut_short', f'{finding.frames} of {finding.promised} frames'
        if finding.frames < min_frames:
            return 'too_short', f'{finding.frames} frames, fewer than {min_frames}'
    return None


class Judge:
    """Finds the problems of lists, and the lines that are left without them.

    A file in two lists stays in the last of them, so that a test list keeps what training loses. A file with two
    labels in a list is in no clean list.

    Args:
        lists: the lists in the order train, val, test.
        findings: findings by path; None for a missing file.
        classes: number of classes, which labels must lie below.
        min_frames: a video with fewer is too short.
    """

    def __init__(self, lists: Lists, findings: dict[str, Finding | None], classes: int, min_frames: int) -> None:
        self.lists, self.findings, self.classes, self.min_frames = lists, findings, classes, min_frames
        self.gone: set[tuple[str, str]] = set()  # (list, path)
        self.homes: dict[str, dict[str, int]] = defaultdict(dict)  # path -> list -> label
        self.problems = [*self._lines(), *self._files(), *self._twice_named(), *self._same_content()]

    def clean(self, name: str) -> list[str]:
        """Return the good lines of a list, in its order."""
        good: dict[str, str] = {}
        for path, label, text in self.lists[name]:
            if path and 0 <= label < self.classes and (name, path) not in self.gone:
                good.setdefault(path, text)
        return list(good.values())

    def _lines(self) -> Iterator[Problem]:
        for name, lines in self.lists.items():
            for number, (path, label, text) in enumerate(lines, 1):
                if not path:
                    yield Problem('bad_line', name, text, f'line {number}')
                elif not 0 <= label < self.classes:
                    yield Problem('bad_label', name, path, f'{label}, outside 0 to {self.classes - 1}')
                elif name not in self.homes[path]:
                    self.homes[path][name] = label
                elif (first := self.homes[path][name]) == label:
                    yield Problem('listed_twice', name, path)
                else:
                    yield Problem('listed_twice', name, path, f'labels {first} and {label}')
                    self.gone.add((name, path))

    def _files(self) -> Iterator[Problem]:
        for path, finding in self.findings.items():
            wrong = of_file(finding, self.min_frames)
            if wrong and path in self.homes:
                yield Problem(wrong[0], ', '.join(self.homes[path]), path, wrong[1])
                self.gone |= {(name, path) for name in self.homes[path]}

    def _twice_named(self) -> Iterator[Problem]:
        for path, names in self.homes.items():
            *others, last = names
            if others:
                yield Problem('in_two_lists', ', '.join(names), path, f'kept in {last}')
                self.gone |= {(name, path) for name in others}

    def _same_content(self) -> Iterator[Problem]:
        groups: dict[str, list[str]] = defaultdict(list)
        for path, finding in self.findings.items():
            if finding and finding.digest and not finding.problem:
                groups[finding.digest].append(path)
        for paths in groups.values():
            places = [(name, path) for name in self.lists for path in paths if name in self.homes.get(path, ())]
            names = list(dict.fromkeys(name for name, _ in places))
            labels = {self.homes[path][name] for name, path in places}
            if len(paths) == 1 or (len(names) < 2 and len(labels) < 2):
                continue
            others = ', '.join(dict.fromkeys(path for _, path in places[1:]))
            yield Problem('same_content', ', '.join(names), places[0][1], f'as {others}')
            # of two labels in one list, neither can be trusted
            for name, path in places:
                if name != names[-1] or len({self.homes[p][n] for n, p in places if n == name}) > 1:
                    self.gone.add((name, path))


def of_parts(lists: Lists) -> Iterator[Problem]:
    """Find lines that are in trainval but not in train or val, or the other way round."""
    if not {'trainval', 'train', 'val'} <= set(lists):
        return
    whole = Counter(line.text for line in lists['trainval'])
    parts = Counter(line.text for name in ('train', 'val') for line in lists[name])
    for text in whole - parts:
        yield Problem('parts', 'trainval', text, 'is in trainval alone')
    for text in parts - whole:
        yield Problem('parts', 'train, val', text, 'is not in trainval')


# VTAB-1k's official draw ignores classes, of which sun397 has 397
DRAWN = {'train800', 'val200'}


def of_counts(lists: Lists, official: dict[str, int], names: Sequence[str]) -> Iterator[Problem]:
    """Find counts that differ from the ``official`` ones (also of 'classes'), and classes without a sample in a list.

    ``names`` are those of the classes.
    """
    counts = {'classes': len(names)} | {name: len(lines) for name, lines in lists.items()}
    for name, count in official.items():
        if name in counts and counts[name] != count:
            yield Problem('count', name, '', f'{counts[name]:,}, officially {count:,}')
    for name in (n for n in lists if n not in DRAWN):
        there = {line.label for line in lists[name]}
        for label, title in enumerate(names):
            if label not in there:
                yield Problem('empty_class', name, '', f'{label} {title}')
