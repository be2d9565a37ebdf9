"""README's section "Your own data", run word for word on real clips."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from tools import REPO, shell
from vpetl_mm.engine.record import read_record

CLIPS = REPO.parent / 'shared/data/fight_surv'
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason='needs ../shared/data/fight_surv')


@pytest.fixture
def section() -> tuple[list[str], str]:
    """The commands and the config of the section."""
    text = (REPO / 'README.md').read_text().partition('## Your own data\n')[2].partition('\n## ')[0]
    commands, config = re.findall(r'```(?:python)?\n(.*?)```', text, re.DOTALL)
    return commands.splitlines(), config


@pytest.fixture
def clone(tmp_path) -> Path:
    """What a user has: the repository's tools and configs, and clips of their own at ~/fight."""
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home/fight').symlink_to(CLIPS)
    (tmp_path / 'clone/configs/mine').mkdir(parents=True)
    (tmp_path / 'clone/tools').symlink_to(REPO / 'tools')
    for path in (REPO / 'configs').iterdir():
        if path.name != 'mine':
            (tmp_path / 'clone/configs' / path.name).symlink_to(path)
    return tmp_path / 'clone'


def run(clone: Path, command: str) -> str:
    """Run a command as its user does."""
    return shell(command, clone, HOME=str(clone.parent / 'home'), OMP_NUM_THREADS='1')


@needs_clips
def test_readme_from_a_folder_of_clips_to_a_tested_model(section, clone):
    (prepare, train, test, predict), config = section
    path = clone / config.splitlines()[0].removeprefix('# ')
    printed = run(clone, prepare).partition('with these lines in it:\n\n')
    small = re.search(r'with (_base_ = .*)', printed[0])[1]
    lines = printed[2].strip().splitlines()
    assert config.strip().splitlines()[1:] == [small, *lines[1:]] and len(lines) == 10
    assert shlex.split(train, comments=True)[1] == str(path.relative_to(clone)) in printed[0]
    path.write_text(config)
    said = run(clone, train)
    bundle = test.split()[1]
    assert bundle in said.splitlines()[-1] and predict.split()[1] == bundle, 'it says what to predict with'
    run(clone, test)
    (result,) = (clone / 'work_dirs/fight').glob('result*.json')
    record = read_record(result)
    assert record.samples == 12 and 1 <= record.epoch <= 7 and record.params == record.total > 300_000
    predicted = run(clone, predict).splitlines()
    assert len(predicted) == 60 and all(re.search(r' (fight|noFight) ', line) for line in predicted)
    right = record.top1 * record.samples / 100
    assert record.top5 == 100 and right == pytest.approx(round(right))
    first, last = (torch.load(clone / f'work_dirs/fight/epoch_{n}.pth', weights_only=True) for n in (6, 7))
    assert any(not torch.equal(v, last['state_dict'][k]) for k, v in first['state_dict'].items())
    losses = [float(x) for x in re.findall(r'loss: ([\d.]+)', said)]
    assert len(losses) >= 7 and losses[-1] < losses[0], losses
