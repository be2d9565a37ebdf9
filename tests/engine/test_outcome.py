"""The names of what a test leaves: the config's own test set has result.json, and another has another name."""

from __future__ import annotations

import re

import pytest
from small_experiment import write_config

from vpetl_mm.engine.experiment import Options, prepare
from vpetl_mm.engine.outcome import suffix
from vpetl_mm.engine.record import Record, write_record

LIST = 'test_dataloader.dataset.ann_file'


@pytest.fixture
def named(clips, tmp_path):
    """The suffix of a test with options."""
    for name, text in (('moved/target_test.txt', None), ('short/target_test.txt', 'a 0\n'), ('short.txt', 'a 0\n')):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text or (clips / 'target_test.txt').read_text())
    config = write_config(clips, tmp_path / 'small.py')

    def name(options: dict, run: dict | None = None) -> str:
        in_place = {k: v.format(tmp_path) if isinstance(v, str) else v for k, v in options.items()}
        return suffix(prepare(config, Options('run', cfg_options=in_place)), dict(options=run or {}))

    return name


@pytest.mark.parametrize(
    'options',
    [
        {},
        {LIST: '{}/moved/target_test.txt'},
        {LIST: '/gone/elsewhere/target_test.txt'} | {'test_dataloader.dataset.data_root': '/mnt'},
        {'test_dataloader.batch_size': 1, 'test_dataloader.num_workers': 0, 'train_dataloader.batch_size': 2},
        {'optim_wrapper.optimizer.lr': 1.0},
    ],
)
def test_the_own_test_set_wherever_it_lies(named, options):
    assert named(options) == ''


@pytest.mark.parametrize(
    ('options', 'name'),
    [
        ({LIST: '{}/short.txt'}, 'short'),
        ({LIST: '{}/gone.txt'}, 'gone'),
        ({LIST: '{}/short/target_test.txt'}, 'target_test'),
        ({'test_dataloader.dataset.indices': 1}, 'changed'),
        ({'test_dataloader.dataset.pipeline': []}, 'changed'),
        ({'test_evaluator.topk': [1, 2, 5]}, 'changed'),
    ],
)
def test_another_has_a_name_of_its_own(named, options, name):
    assert re.fullmatch(rf'_{name}_[0-9a-f]{{6}}', named(options))
    assert named(options) == named(options)


def test_what_the_run_was_given_is_its_own(named):
    options = {LIST: '/data/mine.txt', 'test_dataloader.dataset.indices': 5}
    assert named(options, options) == '' and named(options, {LIST: '/data/mine.txt'}) != ''


def test_the_result_of_another_config_in_the_folder_stays(clips, tmp_path):
    cfg = prepare(write_config(clips, tmp_path / 'small.py'), Options(str(tmp_path / 'run')))
    numbers = dict(top1=1.0, top5=2.0, mean_class=1.0, params=1, total=2, epoch=1, samples=9)
    for config, name in (('small', ''), ('other', '_small')):
        write_record(
            cfg.work_dir, Record(config=config, seed=0, checkpoint='a.pth', finished='2026-01-01', **numbers)
        )
        assert suffix(cfg, {}) == name
