"""The tools as a user runs them, in this process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from vpetl_cli.command import run

REPO = Path(__file__).parents[1]


@cache
def tool(name: str) -> ModuleType:
    """The module ``tools/<name>.py``."""
    spec = importlib.util.spec_from_file_location(name, REPO / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(name: str, *argv: object) -> int:
    """Run a tool; its exit status. What it sets in the environment, such as LOCAL_RANK, goes with it."""
    with patch.dict(os.environ):
        return run(tool(name).main, tool(name).parser, [str(a) for a in argv])


def shell(command: str, folder: Path, **env: str) -> str:
    """Run a command in ``folder``, in the shell of an activated environment; what it prints."""
    env = dict(os.environ, PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}', **env)
    options = dict(shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, f'{command}: {done.stdout[-3000:]}{done.stderr[-2000:]}'
    return done.stdout


def snapshot() -> dict[str, bytes]:
    """Every file below the current folder, and its content."""
    return {str(p): p.read_bytes() if p.is_file() else b'' for p in Path().rglob('*')}


def refused(capsys, name: str, *argv: object) -> str:
    """Run a tool that refuses its input: exit status 2, one sentence, which is returned, and no file changed."""
    before = snapshot()
    assert call(name, *argv) == 2
    assert snapshot() == before, 'something was written'
    error = capsys.readouterr().err
    assert error.startswith('error: ') and 'Traceback' not in error, error
    return error
