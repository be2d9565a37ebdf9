"""The arguments of the command, and the content of a source."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from .lists import Lists

VIDEO_SUFFIXES = frozenset({
    '.3g2', '.3gp', '.asf', '.avi', '.divx', '.dv', '.f4v', '.flv', '.m2t', '.m2ts', '.m2v', '.m4v', '.mjpeg',
    '.mkv', '.mod', '.mov', '.mp4', '.mpe', '.mpeg', '.mpg', '.mts', '.mxf', '.ogm', '.ogv', '.qt', '.rm', '.rmvb',
    '.tod', '.ts', '.vob', '.webm', '.wmv',
})  # fmt: skip
IMAGE_SUFFIXES = frozenset({
    '.avif', '.bmp', '.gif', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.pnm', '.ppm',
    '.tga', '.tif', '.tiff', '.webp',
})  # fmt: skip
KINDS = {'video': VIDEO_SUFFIXES, 'image': IMAGE_SUFFIXES}
MEDIA = {'video': 'videos', 'image': 'images'}  # the folder below --out
PARTS = ('trainval', 'train', 'val', 'test')


@dataclass(frozen=True)
class PrepareArgs:
    """Arguments of ``tools/prepare_data.py``.

    Args:
        name: the data set.
        src: the folder, list or archive that holds it.
        out: the folder to prepare.
        val: share of the training list to hold out. Defaults to 0.1.
        test: for your own data without a test list, the share to draw for one. Defaults to None, which means 0.2.
        seed: seed of both draws. Defaults to 0.
        split: HMDB51's, 1 to 3. Defaults to None, which means 1.
        classes: for your own data, a file of class names. Defaults to None.
        sha256: put sums into the manifest. Defaults to False.
        short_side: re-encode the videos to this many pixels. Defaults to None, which keeps them.
        workers: processes that re-encode, threads that compute sums. Defaults to 1.
    """

    name: str
    src: Path
    out: Path
    val: float = 0.1
    test: float | None = None
    seed: int = 0
    split: int | None = None
    classes: Path | None = None
    sha256: bool = False
    short_side: int | None = None
    workers: int = 1


@dataclass
class Found:
    """The content of a source.

    Args:
        kind: 'video', 'image' or 'array'.
        classes: class names; the label is the index.
        lists: 'trainval', or 'train' and 'val'; and 'test' unless it is to be drawn.
        root: folder that the lists' paths are relative to; None for arrays.
        others: further files or folders that belong below --out, from name to present path.
        official: published counts of 'trainval', 'test' and 'classes', where known.
        split: HMDB51's.
        own: your own data, not an official data set, so that parts are drawn per class.
        files: the lists to write, each with its file name without ``.txt``.
        media: folder below --out that the lists' paths are relative to; '' is that of the kind.
    """

    kind: str
    classes: list[str]
    lists: Lists
    root: Path | None = None
    others: dict[str, Path] = field(default_factory=dict)
    official: dict[str, int] = field(default_factory=dict)
    split: int | None = None
    own: bool = False
    files: dict[str, str] = field(default_factory=lambda: {part: part for part in PARTS})
    media: str = ''

    def locate(self, name: str) -> Path:
        """Return the present path of a file of the media, or of an array's files."""
        if self.root is not None:
            return self.root / name
        first, _, rest = name.partition('/')
        return self.others[first] / rest


def walk(folder: Path, skipped: list[Path] | None = None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield every folder from ``folder`` down with the sorted names of its folders and files.

    Linked folders are followed. Hidden files and folders are skipped, and so are folders that were read already or
    that hold ``folder``, so that a link back does not loop forever; their paths are added to ``skipped``.

    Raises:
        OSError: for a folder that cannot be read.
    """
    start = os.path.realpath(folder)
    seen = {start}
    skipped = [] if skipped is None else skipped

    def fail(error: OSError) -> None:
        raise error

    def leads_back(path: str) -> bool:
        real = os.path.realpath(path)
        known = real in seen or os.path.commonpath([real, start]) == real
        seen.add(real)
        return known

    for path, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        hidden = {n for n in (*folders, *files) if n.startswith('.')}
        back = {n for n in sorted({*folders} - hidden) if leads_back(os.path.join(path, n))}
        skipped += [Path(path, n) for n in sorted(hidden | back)]
        folders[:] = sorted({*folders} - hidden - back)
        yield Path(path), folders, sorted({*files} - hidden)


def need_folder(src: Path, what: str, *files: str) -> Path:
    """Return the folder that ``src`` is, or that holds it if it is one of ``files``; refuse any other file."""
    folder = src.parent if src.is_file() and src.name in files else src
    if not folder.is_dir():
        raise UserError(f'--src {src} should be the folder with {what}, and is a file.')
    return folder
