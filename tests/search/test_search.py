"""A whole search: its driver is killed, the same command goes on, and the winner alone reads the test list."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState
from searching import LR, WIDTH, write_experiment

import tools
from vpetl_mm import UserError, build_model
from vpetl_mm.campaign.local import LocalEngine
from vpetl_mm.config import load_config
from vpetl_mm.engine.record import read_record
from vpetl_mm.search.checks import planned
from vpetl_mm.search.search import tune
from vpetl_mm.search.settings import read_search
from vpetl_mm.search.study import open_study

TRIALS = 4


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    """A config whose test list is not there yet."""
    root = tmp_path_factory.mktemp('whole')
    file = write_experiment(root)
    (root / 'target_test.txt').rename(root / 'hidden.txt')
    return file


@pytest.fixture(scope='module')
def said(config) -> list[str]:
    """What the search says whose driver is killed in the first trial, and which is then started again."""
    search, notes = planned(config, {}, work_dir=config.parent)
    given = ['--trials', TRIALS, '--jobs', 2, '--finalists', 2, '--seeds', 2, '--work-dir', config.parent]
    driver = subprocess.Popen([sys.executable, tools.REPO / 'tools/tune.py', config, *map(str, given)])
    while not any(Path(search.folder).glob('trial_*/epoch_1.pth')):
        time.sleep(0.1)
        assert driver.poll() is None
    driver.kill()
    driver.wait()
    assert not (Path(search.folder) / 'winner').exists()
    lines = [*notes]

    def say(line: str) -> None:
        lines.append(line)
        if 'over 2 seed(s)' in line and (config.parent / 'hidden.txt').exists():
            (config.parent / 'hidden.txt').rename(config.parent / 'target_test.txt')

    _tune(search, say)
    return lines


def _tune(search, say, trials: int = TRIALS, finalists: int = 2):
    return tune([search], LocalEngine(2, threads=1), trials, jobs=2, finalists=finalists, seeds=2, say=say)


@pytest.fixture
def folder(config, said) -> Path:
    return config.parent / 'small'


def test_two_workers_share_the_budget_and_repeat_nothing(folder, said):
    trials = open_study(read_search(folder)).trials
    assert [t.number for t in trials] == [*range(TRIALS)] and all(t.state.is_finished() for t in trials)
    assert trials[0].params == {LR: 0.01, WIDTH: 8}, "the config's own values come first"
    for trial in trials:
        assert trial.user_attrs['starts'] == 1, 'the workers went on without their driver'
        run = folder / f'trial_{trial.number:03}'
        if trial.state == TrialState.COMPLETE:
            record = read_record(run / 'result_holdout.json')
            assert (record.top1, record.samples) == (trial.value, 5)
            assert (run / 'adapter_epoch_2.pth').is_file()
            assert record.options[LR] == pytest.approx(trial.params[LR], rel=1e-3)
    workers = [folder / f'worker_{k}/run.log' for k in range(2)]
    started = [line for log in workers for line in log.read_text().splitlines() if ': optim_wrapper' in line]
    assert len(started) == TRIALS
    assert said[0] == 'small holds out no training data: the search holds out 20% of the list.'


def test_the_table_and_the_figure_have_every_trial(folder):
    with open(folder / 'search.csv', newline='') as stream:
        rows = [*csv.DictReader(stream)]
    trials = open_study(read_search(folder)).trials
    assert [int(row['trial']) for row in rows] == [*range(TRIALS)]
    for row, trial in zip(rows, trials, strict=True):
        assert float(row['acc/top1']) == trial.value and float(row[LR]) == pytest.approx(trial.params[LR], rel=1e-3)
        assert int(row['epochs']) == trial.last_step and float(row['seconds']) > 0
    assert (folder / 'search.png').read_bytes().startswith(b'\x89PNG')


def test_the_winner_is_a_config_that_runs_as_it_is(folder, said, capsys):
    """It inherits the searched one, and its result says how many trials it was chosen from."""
    text = (folder / 'small_tuned.py').read_text()
    assert len(text.splitlines()) < 8 and "_base_ = '" in text
    tuned, own = load_config(folder / 'small_tuned.py'), load_config(folder.parent / 'small.py')
    means = [line for line in said if 'over 2 seed(s)' in line]
    assert len(means) == 2 and means[0].startswith(f'small, trial {text.split()[2].rstrip(",")}: ')
    assert f'{LR}={tuned.optim_wrapper.optimizer.lr}' in means[0]
    own.optim_wrapper.optimizer.lr = tuned.optim_wrapper.optimizer.lr
    own.model.petl.deltas.patt.d_bottle = tuned.model.petl.deltas.patt.d_bottle
    assert {**own.to_dict(), 'trials': TRIALS} == tuned.to_dict()
    record = read_record(folder / 'winner/result.json')
    assert (record.config, record.trials, record.epoch, record.options) == ('small_tuned', TRIALS, 2, {})
    assert record.params == sum(p.numel() for p in build_model(tuned).parameters() if p.requires_grad)
    older = json.loads((folder / 'winner/result.json').read_text())
    del older['trials']
    (folder / 'older.json').write_text(json.dumps(older))
    assert read_record(folder / 'older.json').trials == 0
    assert tools.call('count_params', folder / 'small_tuned.py', '--json') == 0
    assert json.loads(capsys.readouterr().out)[0]['trainable'] == record.params


def test_the_same_command_again_does_nothing_and_more_trials_are_refused(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob('*.*') if p.suffix in ('.pth', '.json', '.py')}
    (record,) = _tune(planned(folder.parent / 'small.py', {}, work_dir=folder.parent)[0], print)
    assert record == read_record(folder / 'winner/result.json')
    after = {p: p.stat().st_mtime_ns for p in folder.rglob('*.*') if p.suffix in ('.pth', '.json', '.py')}
    assert {p for p in after if after[p] != before.get(p)} <= {folder / 'search.json'}
    with pytest.raises(UserError, match=f'winner of {TRIALS} trials, for which the test list has been read'):
        _tune(read_search(folder), print, TRIALS + 1)


def test_trials_alone_choose_nothing_and_test_nothing(folder, tmp_path):
    copy = tmp_path / 'small'
    shutil.copytree(folder, copy)
    for made in ('winner', 'finalists'):
        shutil.rmtree(copy / made)
    (copy / 'small_tuned.py').unlink()
    assert _tune(read_search(copy), print, finalists=0) == []
    assert (copy / 'search.csv').is_file() and not (copy / 'winner').exists() and not (copy / 'finalists').exists()


def test_another_search_in_the_same_folder_is_refused(folder):
    with pytest.raises(UserError, match='holds a search with a different space '):
        planned(folder.parent / 'small.py', {LR: 'log(1e-3,1)'}, work_dir=folder.parent)


def test_a_finalist_that_is_lost_for_other_reasons_ends_the_search_before_anything_is_chosen(folder, tmp_path):
    copy = tmp_path / 'small'
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / 'winner')
    (copy / 'small_tuned.py').unlink()
    lost = next(copy.glob('finalists/*/seed_1'))
    (lost / 'score.json').unlink()
    (lost / 'score.json.partial').mkdir()  # where it would be written
    with pytest.raises(UserError, match=r'seed 1 \(.*score\.json\.partial.*\): the same command goes on'):
        _tune(read_search(copy), print)
    assert not (copy / 'winner').exists() and not (copy / 'small_tuned.py').exists()
