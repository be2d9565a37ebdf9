"""Runs that are killed and resumed end as the one that was left alone, to the bit."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from kill_campaign import campaign, differences, write_experiment
from mmengine.fileio import LocalBackend
from small_experiment import prepared

from vpetl_mm.engine.accuracy import PETLAccuracy
from vpetl_mm.engine.experiment import train

EPOCHS = 3
SCORES = (10.0, 60.0, 30.0)  # of the epochs, so that the second is the best


def killed(run: Callable[[], object]) -> bool:
    """Whether SIGKILL ended ``run``, which is done in a process of its own."""
    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    process.join(600)
    process.kill()
    return process.exitcode == -signal.SIGKILL


@pytest.fixture(scope='module')
def experiment(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('killed')
    return write_experiment(root, EPOCHS)


@pytest.fixture(scope='module')
def scored() -> Iterator[dict[float, float]]:
    """Validation gives SCORES, each bound to the very weights that were first given it."""
    given: dict[float, float] = {}

    def compute(self, results):
        key = float(sum(r['scores'].sum() for r in results))
        return dict(top1=given.setdefault(key, SCORES[len(given)] if len(given) < EPOCHS else -1.0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PETLAccuracy, 'compute_metrics', compute)
        yield given


@pytest.fixture(scope='module')
def whole(experiment, scored) -> Path:
    """The run that is left alone."""
    start(experiment, experiment.parent / 'whole', 0)()
    assert list(scored.values()) == list(SCORES)
    return experiment.parent / 'whole'


class Trap:
    """SIGKILL at the ``nth`` time that a file is half-written or is to be renamed, or a batch is to be validated."""

    def __init__(self, monkeypatch, at: str, name: str = '', nth: int = 1) -> None:
        self.at, self.name, self.left = at, name, nth
        put, replace, process = LocalBackend.put, os.replace, PETLAccuracy.process

        def half(backend, content, path):
            due = self.due('half', Path(path).name.removesuffix('.partial'))
            put(backend, content[: len(content) // 2] if due else content, path)
            self.spring(due)

        def rename(one, other):
            self.spring(self.due('rename', Path(other).name))
            replace(one, other)

        def validate(metric, *args):
            self.spring(self.due('validation', ''))
            process(metric, *args)

        monkeypatch.setattr(LocalBackend, 'put', half)
        monkeypatch.setattr(os, 'replace', rename)
        monkeypatch.setattr(PETLAccuracy, 'process', validate)

    def due(self, at: str, name: str) -> bool:
        here = at == self.at and name == self.name
        self.left -= here
        return here and self.left == 0

    def spring(self, due: bool) -> None:
        if due:
            os.kill(os.getpid(), signal.SIGKILL)


BEST = 'best_acc_top1_epoch_2.pth'
# where it is killed, one after the other, and the epoch after which the next start goes on
STOPS = [
    (('rename', 'epoch_1.pth'), 0),
    (('validation', ''), 1),
    (('half', 'epoch_2.pth'), 1),
    (('validation', ''), 2),
    (('rename', BEST), 2),
    (('half', 'epoch_2.pth'), 2),  # written again with the new best score
    (('validation', '', 3), 3),  # after the two batches of the second epoch, which is validated again
    (('half', 'adapter_epoch_3.pth'), 3),
]


def start(experiment: Path, work_dir: Path, after: int) -> Callable:
    options = {'train_dataloader__num_workers': 0, 'val_dataloader__num_workers': 0}
    return lambda: train(prepared(experiment, work_dir, 'auto' if after else None, **options))


def test_killed_at_every_point_of_writing_and_validating(experiment, whole, scored, tmp_path):
    after = 0
    for stop, next_after in STOPS:
        with pytest.MonkeyPatch.context() as patch:
            Trap(patch, *stop)
            assert killed(start(experiment, tmp_path / 'killed', after)), stop
        after = next_after
        for path in (tmp_path / 'killed').glob('*.pth'):
            assert torch.load(path, weights_only=True)['state_dict'], f'{path} after {stop}'
        assert len(list((tmp_path / 'killed').glob('*.partial'))) <= 1
        newest = max(
            int(p.stem.split('_')[1]) for p in [Path('epoch_0.pth'), *(tmp_path / 'killed').glob('epoch_*.pth')]
        )
        assert newest == after, stop
    start(experiment, tmp_path / 'killed', after)()
    assert list(scored.values()) == list(SCORES), 'other weights were validated'
    assert differences(whole, tmp_path / 'killed') == []
    assert (tmp_path / 'killed' / BEST).is_file()


def test_the_comparison_sees_one_changed_bit(whole, tmp_path):
    other = Path(shutil.copytree(whole, tmp_path / 'other'))
    assert differences(whole, other) == []
    content = torch.load(other / 'epoch_3.pth', weights_only=True)
    next(iter(content['optimizer']['state'].values()))['exp_avg'].view(torch.int32).view(-1)[0] += 1
    content['param_schedulers'][0]['last_step'] += 1
    torch.save(content, other / 'epoch_3.pth')
    (other / BEST).unlink()
    said = differences(whole, other)
    assert len(said) == 3 and BEST in said[0] and 'exp_avg' in said[1] and 'last_step' in said[2], said


def test_sigkill_at_random_moments(tmp_path):
    assert campaign(tmp_path, kills=2, epochs=2, seed=510) == []
