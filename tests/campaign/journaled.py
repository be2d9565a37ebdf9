"""Runs that write down when they are carried out, beside and not in their folders."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from vpetl_mm.commands.grid import Run


@dataclass(frozen=True)
class JournaledRun(Run):
    """A run of a grid that appends the beginning and the end of each attempt to a file of its own."""

    def carry_out(self) -> None:
        """Do what is left, and note both ends of it."""
        tools = [
            Path(part).name for command in self.commands for part in command if part.endswith(('train.py', 'test.py'))
        ]
        self._note(at='begin', tools=tools)
        super().carry_out()
        self._note(at='end', tools=tools)

    def journal(self) -> list[dict]:
        """The attempts at this run, as they were noted."""
        file = self._file()
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def _note(self, **what) -> None:
        self._file().parent.mkdir(exist_ok=True)
        with open(self._file(), 'a') as stream:
            stream.write(f'{json.dumps(dict(what, time=time.time(), process=os.getpid()))}\n')

    def _file(self) -> Path:
        return self.config.parent / 'journals' / f'{self.config.stem}_{self.seed}.jsonl'
