"""Workers that are killed, trials that fail or lose, and a budget that holds."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from optuna.trial import TrialState
from searching import LR, WIDTH

from vpetl_mm.engine.accuracy import PETLAccuracy
from vpetl_mm.engine.record import read_record
from vpetl_mm.search.checks import planned
from vpetl_mm.search.settings import Search, write_search
from vpetl_mm.search.study import open_study, start_with_own_values
from vpetl_mm.search.trial import RESULT, ReportHook, score
from vpetl_mm.search.worker import over, work


def begun(config: Path, folder: Path, given: dict, sampler: str = 'tpe', pruner: str = 'hyperband') -> Search:
    """A search whose folder is ready for workers."""
    search, _ = planned(config, given, sampler=sampler, work_dir=folder, pruner=pruner)
    write_search(search)
    start_with_own_values(search, open_study(search))
    gc.freeze()  # mmengine collects garbage, through all that pytest has imported, five times a run
    return search


def scored(monkeypatch, values: Iterable[float]) -> None:
    """Let one validation after the other have these scores."""
    left = iter(values)
    names = ('top1', 'top5', 'mean_class')
    monkeypatch.setattr(PETLAccuracy, 'compute_metrics', lambda *_: dict.fromkeys(names, next(left)))


def killed_at(batch: int, search: Search, trials: int) -> bool:
    """Whether a worker is killed by SIGKILL, as it is about to validate its ``batch``-th batch, counted from 1."""

    def run() -> None:
        left, process = batch, PETLAccuracy.process

        def trap(metric, *args):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            process(metric, *args)

        PETLAccuracy.process = trap
        work((search.folder,), trials)

    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == -signal.SIGKILL


def test_a_killed_trial_goes_on_once(experiment, tmp_path):
    search = begun(experiment, tmp_path, {})
    assert killed_at(2, search, 2)  # as the second epoch of the first trial is validated
    (left,) = open_study(search).trials[:1]
    assert left.state == TrialState.RUNNING and [*left.intermediate_values] == [1]
    assert left.params == {LR: 0.01, WIDTH: 8}, "the first trial takes the config's own values, as far as they fit"
    assert killed_at(2, search, 2)  # once that is done, in the first epoch of the second trial
    first, second = open_study(search).trials
    assert (first.state, first.params, first.user_attrs['epoch']) == (TrialState.COMPLETE, left.params, 1)
    assert [*first.intermediate_values] == [1, 2]
    logs = [log.read_text() for log in (tmp_path / 'small/trial_000').glob('*/*.log')]
    assert sum('Resuming after epoch 2' in log for log in logs) == 1
    assert second.state == TrialState.RUNNING
    before = (tmp_path / 'small/trial_000' / RESULT).read_bytes()
    assert killed_at(1, search, 2)
    work((search.folder,), 2)
    assert over((search.folder,), 2)
    first, second = open_study(search).trials
    assert (
        second.state == TrialState.FAIL
        and second.user_attrs['reason'] == 'its process was killed 2 times after epoch 0'
    )
    assert (tmp_path / 'small/trial_000' / RESULT).read_bytes() == before


def test_trials_that_fail_or_lose_do_not_stop_a_grid(experiment, tmp_path, monkeypatch):
    """Of three values, one has good scores, one no finite loss, and one is pruned after an epoch."""
    scored(monkeypatch, [50.0, 60.0, 10.0, *(30.0, 30.0), *(10.0, 10.0)])
    search = begun(experiment, tmp_path, {LR: [0.01, 1e20, 0.001]}, 'grid')
    other = begun(experiment, tmp_path / 'other', {WIDTH: [4, 8]}, 'grid', 'none')
    work((search.folder, other.folder), 20)
    states = [t.state for t in open_study(other).trials]
    assert states == [TrialState.COMPLETE] * 2, 'a worker goes on with the next search, which prunes none'
    trials = open_study(search).trials
    assert sorted(t.params[LR] for t in trials) == [0.001, 0.01, 1e20], 'a grid has an end'
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED]
    assert trials[0].value == 60.0, 'the last epoch counts'
    assert 'The loss is nan' in trials[1].user_attrs['reason'] or 'not finite' in trials[1].user_attrs['reason']
    assert [*trials[2].intermediate_values] == [1]
    record = read_record(tmp_path / 'small/trial_000' / RESULT)
    assert (record.top1, record.epoch, record.samples, record.options['holdout.fraction']) == (60.0, 2, 5, 0.2)
    assert (tmp_path / 'small/trial_000/adapter_epoch_2.pth').is_file()
    assert not [*tmp_path.rglob('epoch_*.pth')] and not [*tmp_path.rglob('result.json')]


def test_a_run_that_is_killed_before_it_has_left_its_scores(experiment, tmp_path, monkeypatch):
    """Its last epoch is the best, so that its full state says that this has been validated."""
    scored(monkeypatch, [10.0, 20.0])
    search = begun(experiment, tmp_path, {})
    folder, chosen = tmp_path / 'finalist', {LR: 0.01, WIDTH: 4}

    def run() -> None:
        replace = os.replace

        def trap(one, other):
            if Path(other).name == RESULT:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(one, other)

        os.replace = trap
        score(search, folder, chosen, ReportHook(search.metric), 1)

    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL and not (folder / RESULT).exists()
    hook = ReportHook(search.metric)
    score(search, folder, chosen, hook, 1)
    record = read_record(folder / RESULT)
    assert (record.top1, record.seed, record.epoch, record.samples) == (20.0, 1, 2, 5)
    assert hook.scores['acc/top1'] == 20.0
