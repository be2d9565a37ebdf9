"""docs/using.md, run word for word on a model of the demo."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from tools import REPO, call
from vpetl_mm.commands.demo import Demo

CLIPS = dict(source_train=16, source_test=8, target_train=16, target_val=8, target_test=16)


def blocks() -> list[tuple[str, str]]:
    """The kind and the text of each code block of the page."""
    return re.findall(r'^```(\w*)\n(.*?)^```', (REPO / 'docs/using.md').read_text(), re.DOTALL | re.MULTILINE)


def test_every_command_of_the_page(elsewhere, capsys):
    Demo(Path('configs'), Path('data/demo'), Path('work_dirs/demo'), 1, ['fc'], CLIPS).run()
    capsys.readouterr()
    printed = {}
    for kind, block in blocks():
        if kind == 'python':
            exec(block, {})
            printed['python'] = capsys.readouterr().out
        elif not kind:
            for command in block.splitlines():
                tool, *argv = shlex.split(command, comments=True)
                assert call(Path(tool).stem, *argv) == 0, f'{command}: {capsys.readouterr().err}'
                printed[command] = capsys.readouterr().out
    first, *_ = (c for c in printed if c.startswith('tools/predict.py'))
    shown = next(block for kind, block in blocks() if kind == 'text').strip()
    words = (re.sub(r'[\d.]+%\s+\w+', 'P', line) for line in (printed[first].strip(), shown))
    assert len({re.sub(r'\s+', ' ', w) for w in words}) == 1, 'it prints a line of the form that is shown'
    rows = [json.loads(line) for line in Path('predictions.jsonl').read_text().splitlines()]
    assert [Path(row['input']).name for row in rows] == [f'{i:05d}.mp4' for i in range(16)]
    assert rows[1]['name'] == printed['python'].splitlines()[-1].split()[0] == printed[first].split()[2]
    assert len(list(Path('pictures').glob('*.png'))) == 10
    for left in ('work_dirs/demo_bapat/report.html', 'work_dirs/bapat/report.html', 'compare.png', 'plain.pth'):
        assert Path(left).stat().st_size > 1000, left
    assert 'Bundle of' in printed['tools/train.py configs/demo_bapat.py'].splitlines()[-1]
