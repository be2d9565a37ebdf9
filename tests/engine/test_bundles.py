"""Bundles that are tested without their config, and that other runs start from."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from small_experiment import adapter, content, prepared, write_config
from tools import call, refused

from vpetl_mm import build_model
from vpetl_mm.engine.adapter import adapter_state, trained_meta
from vpetl_mm.engine.experiment import train
from vpetl_mm.engine.record import is_as_printed, read_record
from vpetl_mm.use.bundle import read_bundle


def outcome(folder: Path, name: str = '') -> tuple[tuple[float, ...], list[dict[str, str]]]:
    """The scores and the predictions that a test has left."""
    record = read_record(folder / f'result{name}.json')
    with open(folder / f'predictions{name}.csv', newline='') as stream:
        return (record.top1, record.top5, record.mean_class, record.samples), list(csv.DictReader(stream))


NAMES = [f'motion {n}' for n in range(8)]


def named(config: Path, names: list[str]) -> Path:
    """A config of the small experiment whose data have class names."""
    config.write_text(config.read_text().replace('dataset=dict(', f'dataset=dict(metainfo=dict(classes={names}), '))
    return config


@pytest.fixture(scope='module')
def packed(clips, tmp_path_factory) -> Path:
    """The small experiment with random trained weights, tested with its config into ``run``, and its bundle."""
    root = tmp_path_factory.mktemp('packed')
    config = named(write_config(clips, root / 'small.py'), NAMES)
    model = build_model(config, init_weights=True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    meta = dict(adapter_format=1, epoch=2, seed=0, dataset_meta=dict(classes=NAMES), **trained_meta(model))
    torch.save(dict(state_dict=dict(adapter_state(model)), meta=meta), root / 'adapter_epoch_2.pth')
    argv = [config, root / 'adapter_epoch_2.pth']
    assert call('test', *argv, '--work-dir', root / 'run', '--cfg-options', 'test_dataloader.num_workers=0') == 0
    assert call('adapter', 'pack', *argv, '-o', root / 'small.safetensors') == 0
    return root


def test_a_bundle_gives_the_numbers_of_its_checkpoint(packed, clips, elsewhere, capsys):
    """Without its config: the same scores, and the same logits for each clip."""
    argv = [packed / 'small.safetensors', '--data', clips / 'target_test.txt', '--base', clips / 'base.pth']
    assert call('test', *argv) == 0
    assert 'predictions: work_dirs/small/predictions.csv' in capsys.readouterr().out
    assert outcome(Path('work_dirs/small')) == outcome(packed / 'run')
    record = read_record(Path('work_dirs/small/result.json'))
    assert (record.config, record.checkpoint, record.epoch) == ('small', 'small.safetensors', 2)
    assert not is_as_printed(record), 'a list of anybody is not the experiment that the tables show'
