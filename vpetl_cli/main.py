"""The command ``vpetl``: runs the tools from any folder."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

from .errors import unknown
from .shipped import TOOLS, spoken


def main() -> int:
    """Run the tool that the first argument names, or list all tools; return the exit status."""
    tools = {p.stem: p for p in sorted(TOOLS.iterdir()) if p.suffix in ('.py', '.sh')}
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print('usage: vpetl COMMAND ...\n\nRun "vpetl COMMAND --help" for its options. Commands:\n')
        print('\n'.join(f'  {n:19}{_about(path)}' for n, path in tools.items()))
        return 0
    if name not in tools:
        print(f'error: {unknown("command", name, tools)}', file=sys.stderr)
        return 2
    if tools[name].suffix == '.sh':
        # the scripts call python, which must be this one
        os.environ['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', os.defpath)])
        os.execvp('bash', ['bash', str(tools[name]), *sys.argv[2:]])
    sys.argv[:2] = [f'vpetl {name}']
    runpy.run_path(str(tools[name]), run_name='__main__')
    return 0


def _about(path: Path) -> str:
    """Return what a tool does, from its first line."""
    line = re.search(r'^(?:"""|# )(.+?)\.(?:"|$)', path.read_text(encoding='utf-8'), re.MULTILINE)[1]
    return spoken(line)
