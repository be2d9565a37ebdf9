"""The tools as a user runs them, in this process."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

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
    """Run a tool; its exit status."""
    return run(tool(name).main, tool(name).parser, [str(a) for a in argv])


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
