"""Checks a prepared data set: opens every file, compares the lists and writes clean ones."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..datasets.list_file import parse_line, read_lines
from ..errors import UserError, tellable
from ..files import os_errors_explained, written_whole
from .found import MEDIA
from .inspection import inspect_image, inspect_video
from .journal import Finding, Journal
from .lists import read_json
from .problems import KINDS, Judge, Line, Lists, Problem, of_counts, of_parts
from .progress import progress
from .workers import Failed, each

# VTAB-1k's lists have other names
LISTS = ('trainval', 'train', 'train800', 'val', 'val200', 'test')
INSPECT = {'video': inspect_video, 'image': inspect_image}
SECONDS = 60  # for one file


class Prepared(NamedTuple):
    """A prepared data set: its folder, ``dataset.json``, class names, and lists in the order of ``LISTS``."""

    out: Path
    about: dict[str, Any]
    classes: list[str]
    lists: Lists


def _parse(text: str) -> Line:
    sample = parse_line(text)
    parts = PurePosixPath(sample.path if sample else '').parts
    if not parts or parts[0].startswith('/') or '..' in parts:
        return Line('', -1, text)
    return Line(*sample, text)


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise UserError(f'{file} does not exist; prepare the data again.')
    return [line for line in read_lines(file) if line]


def _is_state(about: dict[str, Any]) -> bool:
    """Check that this is a ``dataset.json`` of ``tools/prepare_data.py``, as far as it is used here."""
    counts, official, kind = about.get('counts'), about.get('official') or {}, about.get('kind')
    if kind not in ('video', 'image', 'array') or not isinstance(counts, dict) or not isinstance(official, dict):
        return False
    return about.get('media') in (MEDIA.get(kind), '.') and all(
        type(count) is int for count in (*counts.values(), *official.values())
    )


def read_prepared(out: Path) -> Prepared:
    """Read the lists, the class names and ``dataset.json`` of a prepared data set.

    Raises:
        UserError: if one is missing or damaged.
    """
    about = read_json(out / 'dataset.json', dict)
    if not _is_state(about):
        raise UserError(f'{out}/dataset.json does not say what the data is; move {out} away and prepare it again.')
    if about['kind'] != 'array' and not (out / about['media']).is_dir():
        raise UserError(f'The files of the data, {out / about["media"]}, are not there; prepare it again.')
    names = [name for name in LISTS if name in about['counts']]
    lists = {name: [_parse(text) for text in _lines(out / f'{name}.txt')] for name in names}
    if not any(lists.values()):
        raise UserError(f'The lists in {out} are empty; prepare it again.')
    return Prepared(out, about, _lines(out / 'classes.txt'), lists)


def _open_all(data: Prepared, workers: int) -> dict[str, Finding | None]:
    """Open every file that the journal does not know."""
    media, inspect = str(data.out / data.about['media']), INSPECT[data.about['kind']]
    paths = dict.fromkeys(line.path for lines in data.lists.values() for line in lines if line.path)
    findings: dict[str, Finding | None] = dict.fromkeys(paths)
    stats: dict[str, os.stat_result] = {}
    with Journal(data.out / 'check.jsonl') as journal, progress(f'Checking {len(paths):,} files', len(paths)) as step:

        def unknown() -> Iterator[str]:
            for path in paths:
                with suppress(OSError):
                    stats[path] = os.stat(os.path.join(media, path))
                    findings[path] = journal.get(path, stats[path])
                if path in stats and not findings[path]:
                    yield path
                else:
                    step(1)

        for path, result in each(lambda p: inspect(os.path.join(media, p)), unknown(), workers, SECONDS):
            failed = isinstance(result, Failed)
            findings[path] = Finding(problem=result.reason) if failed else result
            stat = stats.pop(path)
            if not failed or result.lasting:
                journal.add(path, stat, findings[path])
            step(1)
    return findings


def _index_all(data: Prepared, name: str) -> dict[str, Finding | None]:
    """Check that the indices of a list are below the number of samples of an array."""
    samples = data.about['counts'].get('test' if name == 'test' else 'trainval', 0)
    outside = Finding(problem=f'index outside 0 to {samples - 1}')
    paths = (line.path for line in data.lists[name] if line.path)
    return {p: Finding() if re.fullmatch('[0-9]{1,9}', p) and int(p) < samples else outside for p in paths}


def _judge(data: Prepared, workers: int, min_frames: int) -> tuple[list[Problem], dict[str, list[str]]]:
    """Return all problems, and the clean lines of each list."""
    if data.about['kind'] == 'array':  # the training file and the test file have indices of their own
        groups = [('train', 'val'), ('trainval',), ('test',)]
        known = {name: _index_all(data, name) for name in data.lists}
        findings = [{k: v for name in group for k, v in known.get(name, {}).items()} for group in groups]
    else:
        groups = [tuple(name for name in LISTS if name != 'trainval'), ('trainval', 'test')]
        findings = [_open_all(data, workers)] * len(groups)
    problems: list[Problem] = []
    clean: dict[str, list[str]] = {}
    for group, found in zip(groups, findings, strict=True):
        judge = Judge({k: v for k, v in data.lists.items() if k in group}, found, len(data.classes), min_frames)
        # trainval repeats the problems of train and val
        problems += judge.problems if group[0] != 'trainval' or not {'train', 'train800'} & {*data.lists} else []
        clean = {name: judge.clean(name) for name in judge.lists} | clean
    problems += of_parts(data.lists)
    problems += of_counts(data.lists, data.about.get('official') or {}, data.classes)
    return problems, clean


def _report(data: Prepared, problems: Iterable[Problem], clean: dict[str, list[str]], min_frames: int) -> dict:
    by_kind: dict[str, list[dict[str, str]]] = {kind: [] for kind in KINDS}
    for problem in problems:
        by_kind[problem.kind].append({k: tellable(v) for k, v in problem._asdict().items() if k != 'kind'})
    lists = {}
    for name, lines in data.lists.items():
        labels = Counter(line.label for line in lines)
        per_class = [labels[label] for label in range(len(data.classes))]
        lists[name] = dict(lines=len(lines), clean=len(clean[name]), per_class=per_class)
    count = sum(map(len, by_kind.values()))
    about = dict(name=data.about.get('name'), kind=data.about['kind'], min_frames=min_frames, count=count)
    return dict(**about, lists=lists, problems=by_kind)


def _tell(report: dict, out: Path) -> None:
    for kind, found in report['problems'].items():
        for number, problem in enumerate(found[:4]):
            left = f'{len(found):7,} {KINDS[kind]}: ' if number == 0 else ' ' * 8
            text = '  '.join(filter(None, (problem['path'], f'({problem["where"]})', problem['detail'])))
            print(f'{left}{text}' if number < 3 else f'{left}and {len(found) - 3:,} more')
    lists = ', '.join(f'{name} {about["clean"]:,} of {about["lines"]:,}' for name, about in report['lists'].items())
    print(f'{report["count"]:,} problems. Good lines: {lists}.')
    if report['count']:
        print(f'All of them: {out}/check.json. Lists without them: {out}/*_clean.txt.')


@os_errors_explained()
def check(out: Path, workers: int, min_frames: int) -> int:
    """Open every file of a prepared data set, compare its lists and print a report.

    Writes the report, ``check.json``, and the good lines of each list, ``<list>_clean.txt``. Findings are kept in
    ``check.jsonl``, so that an interrupted check goes on where it stopped.

    Args:
        out: the folder that ``tools/prepare_data.py`` made.
        workers: processes.
        min_frames: a video with fewer is too short.

    Returns:
        the number of problems.

    Raises:
        UserError: if the folder was not prepared, or cannot be written to.
        KeyboardInterrupt: if interrupted; the lists and the report of an earlier check stay.
    """
    out = Path(out)
    data = read_prepared(out)
    problems, clean = _judge(data, workers, min_frames)
    report = _report(data, problems, clean, min_frames)
    texts = {f'{name}_clean.txt': ''.join(f'{line}\n' for line in lines) for name, lines in clean.items()}
    for name, text in {**texts, 'check.json': json.dumps(report, indent=1) + '\n'}.items():
        with written_whole(out / name) as partial:
            partial.write_text(text, encoding='utf-8', errors='surrogateescape')
    _tell(report, out)
    return report['count']
