"""What is known of files, kept line by line so that an interrupted check goes on where it was."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..files import from_json


class Finding(NamedTuple):
    """What opening a file showed.

    Args:
        frames: how many a video has; None for images, and where it cannot be read.
        promised: how many its header says, where it says so.
        digest: the first half of the SHA-256 of its content, for videos of the pictures alone, in hexadecimal;
            empty where it cannot be read.
        problem: why it cannot be read; empty where it can.
    """

    frames: int | None = None
    promised: int | None = None
    digest: str = ''
    problem: str = ''


READER = 2  # raise it where files are read otherwise than before: they are then opened again
KINDS = dict(frames=(int, type(None)), promised=(int, type(None)), digest=(str,), problem=(str,))


class Journal:
    """Findings by path, good for as long as the file's size and time of change stay.

    Args:
        file: the ``.jsonl`` file, read now and appended to; what an interruption left of a line is dropped.

    Raises:
        UserError: when the file cannot be read or written.
    """

    def __init__(self, file: str | Path) -> None:
        self._known: dict[str, tuple[int, int, Finding]] = {}
        try:
            if os.path.islink(file):  # perhaps to a file that is nobody's journal, and would be changed
                raise OSError(errno.EMLINK, 'it is a link')
            if os.path.exists(file):
                self._read(Path(file))
            self._stream = Path(file).open('a', encoding='utf-8')  # noqa: SIM115 closed by __exit__
        except OSError as error:
            raise UserError(f'The journal {file} cannot be used ({error.strerror}).') from error

    def _read(self, file: Path) -> None:
        with open(file, 'rb+') as stream:
            whole = 0
            for line in stream:
                if not line.endswith(b'\n'):
                    stream.truncate(whole)
                    break
                whole += len(line)
                self._take(line)

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
        """What is known of the file as it is now."""
        size, mtime, finding = self._known.get(path, (None, None, None))
        return finding if (size, mtime) == (stat.st_size, stat.st_mtime_ns) else None

    def add(self, path: str, stat: os.stat_result, finding: Finding) -> None:
        """Keep a finding; it is in the system's hands when this returns."""
        entry: dict[str, Any] = dict(path=path, size=stat.st_size, mtime=stat.st_mtime_ns, reader=READER)
        entry |= {k: v for k, v in finding._asdict().items() if v not in (None, '')}
        self._stream.write(json.dumps(entry) + '\n')
        self._stream.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
