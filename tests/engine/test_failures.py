"""What happens to a run from outside: a sentence, and what was saved before stays whole."""

from __future__ import annotations

import errno
import logging
import multiprocessing
from contextlib import nullcontext
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.logging import MMLogger

from vpetl_mm import UserError
from vpetl_mm.engine.console import quiet
from vpetl_mm.engine.experiment import test as run_test
from vpetl_mm.engine.experiment import train


class Kill(Hook):
    """Kills the loader's workers after the first batch, as a system without memory would."""

    def after_train_iter(self, *_, **__) -> None:
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()

    after_test_iter = after_train_iter


def test_a_killed_worker_is_told_of_in_training_and_in_testing(ready, tmp_path):
    with pytest.raises(UserError, match=r'process that loads data.*num_workers.*--resume'):
        train(ready(), [Kill()])
    train(ready('whole', train_cfg__max_epochs=1, train_dataloader__num_workers=0))
    options = {'test_dataloader__batch_size': 1}
    with pytest.raises(UserError, match='process that loads data'):
        run_test(ready('whole', **options), tmp_path / 'whole/adapter_epoch_1.pth', hooks=[Kill()])
    assert not (tmp_path / 'whole/result.json').exists()


def test_a_full_disk_ends_training_in_a_sentence(ready, tmp_path):
    full = tmp_path / 'full.json'
    full.symlink_to('/dev/full')
    backend = dict(type='LocalVisBackend', scalar_save_file=str(full))
    with pytest.raises(UserError, match=r'cannot be written \(No space left on device\).*--resume'):
        train(ready(visualizer__vis_backends=[backend]))


def test_a_full_disk_under_tensorboard_is_no_threads_traceback(ready, tmp_path, capfd, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('tensorboard.compat.tensorflow_stub.io.gfile.LocalFileSystem.append', no_space)
    with pytest.raises(UserError, match='No space left on device'):
        train(ready(visualizer__vis_backends=[dict(type='TensorboardVisBackend')], train_cfg__max_epochs=1))
    assert 'Traceback' not in capfd.readouterr().err


def test_predictions_that_do_not_fit_on_the_disk(ready, tmp_path, monkeypatch):
    train(ready(train_cfg__max_epochs=1))
    monkeypatch.setattr('vpetl_mm.engine.accuracy.written_whole', lambda file: nullcontext(Path('/dev/full')))
    with pytest.raises(UserError, match='No space left on device'):
        run_test(ready(), tmp_path / 'run/adapter_epoch_1.pth', str(tmp_path / 'p.csv'))
    assert not (tmp_path / 'p.csv').exists()


def test_a_log_file_on_a_full_disk_is_no_traceback_for_each_line(capsys):
    logger = quiet(MMLogger('full', log_file=None))
    handler = logging.FileHandler('/dev/full')
    logger.addHandler(handler)
    quiet(logger)
    with pytest.raises(OSError, match='No space left') as error:
        logger.info('a line')
    assert error.value.filename == '/dev/full' and 'Traceback' not in capsys.readouterr().err
