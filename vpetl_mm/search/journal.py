"""The file in which Optuna keeps a study, on a disk that may be full and with workers that may be killed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock


class WholeLineLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal; whoever takes it first cuts off half a line, which its writer has given up.

    Args:
        file: the journal, with its absolute path.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self.file = file

    def acquire(self) -> bool:
        """Wait for the lock."""
        taken = super().acquire()
        try:
            cut_half_line(self.file)
        except BaseException:
            self.release()
            raise
        return taken


class Journal(JournalFileBackend):
    """Optuna's journal, whose next line never joins one that a full disk or a kill has cut.

    Args:
        file: the journal; new if there is none.
    """

    def __init__(self, file: Path) -> None:
        self.file = file.resolve()  # the lock is a link to it: a relative one would lead nowhere, and never grow old
        super().__init__(str(self.file), WholeLineLock(self.file))

    def append_logs(self, logs: Sequence[Mapping[str, Any]]) -> None:
        """Append lines.

        Raises:
            OSError: with the file's name, when it cannot be written.
        """
        try:
            super().append_logs(list(logs))
        except OSError as error:
            error.filename = str(self.file)
            raise


def cut_half_line(file: Path) -> None:
    """Remove what stands behind the last line's end."""
    with open(file, 'r+b') as stream:
        end = size = stream.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 4096)
            stream.seek(start)
            if (place := stream.read(end - start).rfind(b'\n')) >= 0:
                end = start + place + 1
                break
            end = start
        if end < size:
            stream.truncate(end)
