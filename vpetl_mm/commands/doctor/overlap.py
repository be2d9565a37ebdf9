"""Whether train, val and test share files, or content under other names."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import combinations
from typing import NamedTuple

from ...files import file_sha256
from ...preparation.progress import progress
from .lists import Split
from .verdict import Verdict, some, worst

THREADS = 4  # a file on a network drive is waited for


class Listed(NamedTuple):
    """A sample: the name of its split, and its file or its number."""

    split: str
    name: str


class Content(NamedTuple):
    """The contents of a split's samples.

    Args:
        files: identity on the disk and size -> where it is listed; links lead to the same identity.
        arrays: digest of an image in memory -> where it is.
        missing: files that do not exist.
    """

    files: dict[tuple[int, int, int], Listed]
    arrays: dict[str, Listed]
    missing: list[Listed]


def contents_of(splits: Sequence[Split]) -> list[Content]:
    """Look at every file of the lists, without opening any, and at every image in memory."""
    contents = []
    with progress('looking at files', sum(len(split.files) for split in splits)) as advance:
        for split in splits:
            content = Content({}, {}, [])
            for index, file in enumerate(split.files):
                advance(1)
                if file is not None:
                    _note(content, Listed(split.name, file))
                elif index in split.digests:
                    content.arrays.setdefault(split.digests[index], Listed(split.name, f'image {index}'))
            contents.append(content)
    return contents


def _note(content: Content, place: Listed) -> None:
    try:
        stat = os.stat(place.name)
    except OSError:
        content.missing.append(place)
    else:
        content.files.setdefault((stat.st_dev, stat.st_ino, stat.st_size), place)


def check_overlap(contents: Sequence[Content], most: int, absent: Sequence[str] = ()) -> Verdict:
    """Compare the splits by file and by content; only files of equal size are read.

    Args:
        contents: of the splits.
        most: how many files are read at most, drawn at random.
        absent: what is missing of lists that could not be compared.
    """
    same_file = [*_shared([c.files for c in contents])]
    candidates = _of_equal_size([c.files for c in contents])
    equal = sum(map(len, candidates))
    hashed, read = _hashed(candidates, most)
    same_content = [pair for pair in _shared(hashed) if pair not in same_file]
    same_content += _shared([c.arrays for c in contents])
    wrong = [f'{a.split} {a.name} and {b.split} {b.name} are one file' for a, b in same_file]
    wrong += [f'{a.split} {a.name} and {b.split} {b.name} have the same content' for a, b in same_content]
    files, arrays = (sum(len(c[kind]) for c in contents) for kind in (0, 1))
    parts = [f'{files:,} files; {read:,} of {equal:,} with a size in two lists were read'] if files else []
    parts += [f'{arrays:,} images in memory'] if arrays else []
    said = f'nothing is in two lists ({"; ".join(parts)})' if len(contents) > 1 else 'there is one list alone'
    if wrong:
        said = wrong[0] if len(wrong) == 1 else f'{len(wrong):,} samples are in two lists'
    if equal > read:
        said += f'; --hash {equal} reads them all'
    notes = [f'not compared: {line}' for line in absent]
    return Verdict('disjoint', worst(wrong, notes or equal > read), said, [*some(wrong if wrong[1:] else []), *notes])


def _shared(splits: Sequence[Mapping[Hashable, Listed]]) -> Iterator[tuple[Listed, Listed]]:
    """Yield the two places of each key that two splits have."""
    for one, other in combinations(splits, 2):
        yield from ((place, other[key]) for key, place in one.items() if key in other)


def _of_equal_size(
    splits: Sequence[dict[tuple[int, int, int], Listed]],
) -> list[dict[tuple[int, int, int], Listed]]:
    """Return the files of each split that have the size of another file in another split, and are not empty."""
    sizes: dict[int, set[int]] = defaultdict(set)
    for number, files in enumerate(splits):
        for *_, size in files:
            sizes[size].add(number)
    return [{k: place for k, place in files.items() if k[2] and len(sizes[k[2]]) > 1} for files in splits]


def _hashed(
    candidates: Sequence[dict[tuple[int, int, int], Listed]], most: int
) -> tuple[list[dict[str, Listed]], int]:
    """Return digest -> place for each split, and how many files were read; those of one size are read together."""
    chosen = _chosen(candidates, most)
    hashed: list[dict[str, Listed]] = [{} for _ in candidates]
    jobs = [
        (number, place, key)
        for number, files in enumerate(candidates)
        for key, place in files.items()
        if key[2] in chosen
    ]
    with progress('comparing files', len(jobs)) as advance, ThreadPoolExecutor(THREADS) as pool:
        for (number, place, key), digest in zip(jobs, pool.map(lambda job: _of_file(job[1].name), jobs), strict=True):
            hashed[number].setdefault(digest or f'unreadable {key}', place)
            advance(1)
    return hashed, len(jobs)


def _chosen(candidates: Sequence[dict[tuple[int, int, int], Listed]], most: int) -> set[int]:
    """Draw sizes until their files are ``most``."""
    counts: dict[int, int] = defaultdict(int)
    for files in candidates:
        for *_, size in files:
            counts[size] += 1
    chosen, total = set(), 0
    for size in random.Random(0).sample(sorted(counts), len(counts)):
        if total + counts[size] <= most:
            chosen.add(size)
            total += counts[size]
    return chosen


def _of_file(file: str) -> str | None:
    with suppress(OSError):  # what cannot be read is told elsewhere
        return file_sha256(file)
    return None
