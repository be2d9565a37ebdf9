"""The code in the guides is what there is, and runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vpetl_mm import build_model

REPO = Path(__file__).parents[1]


def blocks(name: str) -> list[str]:
    return re.findall(r'```python\n(.*?)```', (REPO / 'docs' / name).read_text(), re.DOTALL)


@pytest.fixture
def copied(tmp_path) -> Path:
    """A copy of this repository, to follow a guide in."""
    ignored = shutil.ignore_patterns('.*', '__pycache__', 'build', 'dist', 'work_dirs', 'data', '*.egg-info', 'mine')
    return shutil.copytree(REPO, tmp_path / 'copy', ignore=ignored)


def follow(guide: str, folder: Path) -> list[str]:
    """Do in ``folder`` what a guide's blocks say: new files, changes, commands; what the commands printed."""
    printed = []
    text = (REPO / 'docs' / guide).read_text()
    for indent, kind, block in re.findall(r'^( *)```(\w*)\n(.*?)^ *```', text, re.DOTALL | re.MULTILINE):
        code = textwrap.dedent(block) if kind != 'diff' else re.sub(f'^{indent}', '', block, flags=re.MULTILINE)
        head, _, body = code.partition('\n')
        path = folder / head.removeprefix('# ')
        if kind == 'python':
            path.parent.mkdir(exist_ok=True)
            path.write_text(body)
        elif kind == 'diff':
            path.write_text(changed(path.read_text(), body))
        else:
            printed += [run(command, folder) for command in code.splitlines()]
    return printed


def changed(text: str, diff: str) -> str:
    """``text`` with the places of a diff changed."""
    for place in diff.split('@@\n'):
        old, new = (''.join(ln[1:] for ln in place.splitlines(True) if ln[0] in f' {sign}') for sign in '-+')
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def run(command: str, folder: Path) -> str:
    """What a command prints in the shell of an activated environment."""
    env = dict(os.environ, PYTHONPATH=str(folder), PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    done = subprocess.run(command, shell=True, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f'{command}: {done.stdout[-3000:]}{done.stderr[-2000:]}'
    return done.stdout


def test_the_guide_to_a_method_followed_to_its_end(copied):
    counted, tested, linted = follow('adding_a_method.md', copied)
    widths = 2 * 128 + 2 * 256 + 18 * 512 + 2 * 1024
    assert f'head {174 * 1025:,}, ssf {2 * 3 * widths:,}' in counted
    assert re.search(r'^\.{40,}', tested) and 'All checks passed' in linted


def test_the_host_of_the_guide_is_the_one_in_the_tree():
    entry, leaf, _ = blocks('adding_a_host.md')
    for block in (entry, leaf):
        path, _, code = block.partition('\n')
        assert code.strip() in (REPO / path.removeprefix('# ')).read_text(), path


def test_the_model_of_the_guide_builds():
    scope: dict = {}
    exec(blocks('adding_a_host.md')[2], scope)
    config = {k: scope[k] for k in ('default_scope', 'model')}
    counts = build_model(config, meta=True).plan.count()
    assert counts['by'] == {'head': 102_500, 'patt': 24 * (32 + 0) + 3 * 32 * 12_032 + 2 * 12_032}
