"""Keeps the findings of opened files line by line, so that an interrupted check goes on where it stopped."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..files import from_json


class Finding(NamedTuple):
    """Result of opening a file.

    Args:
        frames: number of frames of a video. Defaults to None, for images and unreadable files.
        promised: number of frames by its header. Defaults to None, if the header does not say.
        digest: first half of the SHA-256 of its content, in videos of the pictures alone, in hexadecimal. Defaults
            to '', for unreadable files.
        problem: why it cannot be read. Defaults to ''.
    """

    frames: int | None = None
    promised: int | None = None
    digest: str = ''
    problem: str = ''


READER = 2  # raise it when files are read in another way: they are then opened again
KINDS = dict(frames=(int, type(None)), promised=(int, type(None)), digest=(str,), problem=(str,))


class Journal(AbstractContextManager):
    """Findings by path, valid while the file's size and modification time stay the same.

    Args:
        file: the ``.jsonl`` file, read now and appended to; an incomplete last line is dropped.

    Raises:
        UserError: if the file is a link.
        OSError: if it cannot be read or written.
    """

    def __init__(self, file: str | Path) -> None:
        self._known: dict[str, tuple[int, int, Finding]] = {}
        if os.path.islink(file):  # perhaps to a file that is not a journal, and would be changed
            raise UserError(f'The journal {file} is a link; remove it.')
        content = Path(file).read_bytes() if os.path.exists(file) else b''
        whole, _, rest = content.rpartition(b'\n')
        if rest:
            os.truncate(file, len(content) - len(rest))
        for line in whole.split(b'\n'):
            self._take(line)
        self._stream = Path(file).open('a', encoding='utf-8')  # noqa: SIM115 closed by __exit__

    def _take(self, line: bytes) -> None:
        try:
            entry = from_json(line)
            path, size, mtime = entry.pop('path'), entry.pop('size'), entry.pop('mtime')
            if entry.pop('reader', 1) != READER:
                return
            finding = Finding(**entry)
            counts = finding.frames or 0, finding.promised or 0
            if all(type(v) in KINDS[k] for k, v in finding._asdict().items()) and max(counts) < 2**31:
                self._known[path] = (size, mtime, finding)
        except (ValueError, TypeError, KeyError, AttributeError):
            return  # damaged, so not known

    def get(self, path: str, stat: os.stat_result) -> Finding | None:
        """Return the finding of the file as it is now, if known."""
        size, mtime, finding = self._known.get(path, (None, None, None))
        return finding if (size, mtime) == (stat.st_size, stat.st_mtime_ns) else None

    def add(self, path: str, stat: os.stat_result, finding: Finding) -> None:
        """Keep a finding, written to the file when this returns."""
        entry: dict[str, Any] = dict(path=path, size=stat.st_size, mtime=stat.st_mtime_ns, reader=READER)
        entry |= {k: v for k, v in finding._asdict().items() if v not in (None, '')}
        self._stream.write(json.dumps(entry) + '\n')
        self._stream.flush()

    def __exit__(self, *_: object) -> None:
        self._stream.close()
