"""The record of a test run: written whole, read back, refused when it cannot be true."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace

import pytest

from vpetl_mm.engine.record import Record, find_records, is_as_printed, read_record, write_record
from vpetl_mm.errors import UserError

RECORD = Record(
    config='swin_bapat_ssv2_b128',
    seed=1,
    top1=53.36,
    top5=80.5,
    mean_class=48.0,
    params=6_379_438,
    total=94_018_422,
    checkpoint='work_dirs/x/adapter_epoch_70.pth',
    epoch=70,
    samples=24_777,
    options={'randomness.seed': 1},
    finished='2026-01-02T03:04:05',
    machine='here',
)


def test_a_record_comes_back_as_it_was(tmp_path):
    path = write_record(tmp_path / 'run', RECORD)
    assert path == tmp_path / 'run/result.json' and read_record(path) == RECORD
    assert [p.name for p in (tmp_path / 'run').iterdir()] == ['result.json'], 'nothing is left beside it'
    parts = replace(RECORD, by={'patt': 6_200_000, 'head': 179_438})
    assert read_record(write_record(tmp_path, parts)) == parts
    older = {k: v for k, v in json.loads(path.read_text()).items() if k != 'by'}
    path.write_text(json.dumps(older))
    assert read_record(path) == RECORD


def test_options_of_any_kind_can_be_written(tmp_path):
    options = {'model.base': None, 'a': (1, 2), 'b': dict(c=tmp_path), 'd': 0.5}
    read = read_record(write_record(tmp_path, replace(RECORD, options=options)))
    assert read.options == {'model.base': None, 'a': [1, 2], 'b': {'c': str(tmp_path)}, 'd': 0.5}


def test_records_are_found_by_what_they_say(tmp_path):
    write_record(tmp_path / 'another_name/deep', RECORD)
    write_record(tmp_path / 'swin_bapat_ssv2_b128/seed_0', replace(RECORD, config='swin_fc_ssv2'))
    write_record(tmp_path / 'swin_bapat_ssv2_b128/seed_0', RECORD, 'result_short_0f3b21.json')  # of another list
    os.mkfifo(tmp_path / 'another_name/result.json')  # reading it would never end
    found = find_records(tmp_path)
    assert sorted(r.config for r in found.values()) == ['swin_bapat_ssv2_b128', 'swin_fc_ssv2']
    assert find_records(tmp_path / 'nowhere') == {}


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(top1=101), 'between 0 and 100'),
        (dict(top5=-1), 'between 0 and 100'),
        (dict(mean_class=float('nan')), 'between 0 and 100'),
        (dict(top1='53'), 'between 0 and 100'),
        (dict(top1=10**400), 'between 0 and 100'),
        (dict(top1=90.0), 'below top-1'),
        (dict(params=10**9), 'params'),
        (dict(params=True), 'params'),
        (dict(samples=0), 'samples'),
        (dict(seed='one'), 'seed'),
        (dict(seed=-1), 'seed must be a whole number from 0'),
        (dict(finished='yesterday'), 'yesterday'),
        (dict(config=''), 'config'),
        (dict(config='../work_dirs/x/evil'), 'is a path'),
        (dict(config='/tmp/evil'), 'is a path'),
        (dict(config='swin_fc_ssv2\n| [evil](http://evil) |'), 'a line each'),
        (dict(machine='here\n\n# A heading'), 'a line each'),
        (dict(checkpoint='a.pth\x1b[2J'), 'a line each'),
        (dict(machine='here\u2028there'), 'a line each'),
        (dict(machine=3), 'machine'),
        (dict(options=[]), 'options'),
        (dict(by={'head': 3}), 'add up'),
        (dict(by=[6_379_438]), 'add up'),
        (dict(by={'head\n': 6_379_438}), 'add up'),
    ],
)
def test_impossible_values_are_neither_read_nor_written(tmp_path, change, said):
    path = tmp_path / 'result.json'
    path.write_text(json.dumps({'format': 'vpetl_mm result 1', **asdict(RECORD), **change}))
    with pytest.raises(UserError, match=said) as error:
        read_record(path)
    assert str(path) in str(error.value)
    if change.get('options') is None:
        with pytest.raises(UserError):
            write_record(tmp_path / 'new', replace(RECORD, **change))
        assert not (tmp_path / 'new/result.json').exists()


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('{"format": "vpetl', 'corrupt'),
        ('', 'corrupt'),
        ('[]', 'not a result'),
        ('[' * 100_000 + ']' * 100_000, 'corrupt'),
        (json.dumps({**asdict(RECORD), 'options': {'a': json.loads('[' * 90 + ']' * 90)}}), 'nested too deeply'),
        ('{"format": "another"}', 'not a result'),
        ('{"format": "vpetl_mm result 1"}', 'missing'),
        (json.dumps({'format': 'vpetl_mm result 1', **asdict(RECORD), 'top2': 1}), 'top2 is unknown'),
    ],
)
def test_a_corrupt_file_or_another_format_is_one_sentence(tmp_path, text, said):
    path = tmp_path / 'result.json'
    path.write_text(text)
    with pytest.raises(UserError, match=said) as error:
        find_records(tmp_path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('options', 'same'),
    [
        ({}, True),
        ({'randomness.seed': 3}, True),
        ({'train_dataloader.batch_size': 4, 'optim_wrapper.accumulative_counts': 4}, True),
        ({'train_dataloader': {'num_workers': 2, 'dataset': {'data_prefix': {'video': '/data'}}}}, True),
        ({'model.base.file': '/weights/swin.pth', 'test_dataloader.dataset.ann_file': 'a.txt'}, True),
        ({'model.petl.deltas.patt.scale': 0.5}, False),
        ({'model': {'petl': {'train': ['head']}}}, False),
        ({'holdout.fraction': 0.05}, False),
        ({'model.base': None}, False),
        ({'optim_wrapper.optimizer.lr': 0.2, 'randomness.seed': 0}, False),
        ({'train_cfg.max_epochs': 1}, False),
        ({'randomness.seeds': 0}, False),
        ({'auto_scale_lr.enable': False}, False),
    ],
)
def test_only_seed_paths_workers_and_batch_leave_the_experiment_what_it_is(options, same):
    assert is_as_printed(replace(RECORD, options=options)) == same
