"""The command that measures sensitivity for a run, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from vpetl_cli.shipped import TOOLS

SPT_FILE = 'spt.safetensors'  # in a run's folder: what SPT tunes


def sensitivity_command(config: str | Path, file: str | Path, options: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the command.

    Args:
        config: the experiment's file.
        file: that it writes.
        options: the run's ``--cfg-options``, as text. Defaults to none.
    """
    command = (sys.executable, str(TOOLS / 'sensitivity.py'), str(config), '--out', str(file))
    return (*command, '--cfg-options', *options) if (options := tuple(options)) else command
