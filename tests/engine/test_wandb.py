"""Weights & Biases, offline: what its files hold, and what happens without it."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_experiment import QUICK, held_out

from vpetl_mm import UserError
from vpetl_mm.engine.experiment import train


def watched(clips: Path, **init_kwargs) -> dict:
    """Options of a run with a hold-out that reports to Weights & Biases."""
    wandb = dict(type='WandbVisBackend', init_kwargs=dict(project='tests', **init_kwargs))
    return {'visualizer__vis_backends': [dict(type='LocalVisBackend'), wandb], **held_out(clips)}


def records(run: Path) -> list:
    """Everything in the run's offline files, oldest first."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # as the end of a process does: until then its writer may be behind
    found = []
    for file in sorted(run.rglob('run-*.wandb')):
        for data in logged(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            found.append(record)
    return found


def logged(content: bytes) -> Iterator[bytes]:
    """The entries of a file in LevelDB's log format, 7 bytes of which are W&B's own header."""
    place, whole = 7, b''
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack_from('<IHB', content, place)
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield whole
            whole = b''


def histories(found: list) -> list[dict]:
    rows = [r.history for r in found if r.WhichOneof('record_type') == 'history']
    return [{i.key or i.nested_key[0]: json.loads(i.value_json) for i in row.item} for row in rows]


def test_a_run_reports_its_losses_its_accuracies_and_its_config(ready, tmp_path, clips, monkeypatch):
    monkeypatch.setenv('WANDB_MODE', 'offline')
    options = watched(clips, id='one', resume='allow') | {'default_hooks__logger__interval': 1}
    train(ready(**options, train_cfg__max_epochs=1))
    train(ready(resume='auto', resume_with='new', **options))
    found = records(tmp_path / 'run')
    # mmengine's own file has the same figures
    files = sorted(tmp_path.glob('run/*/vis_data/scalars.json'))
    local = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    rows = histories(found)
    losses = [(row['epoch'], row['iter'], row['loss']) for row in rows if 'loss' in row]
    assert losses == [(row['epoch'], row['iter'], pytest.approx(row['loss'])) for row in local if 'loss' in row]
    assert [place[:2] for place in losses] == [(1 + i // 5, i + 1) for i in range(10)]  # 18 clips in batches of 4
    scores = [row['acc/top1'] for row in rows if 'acc/top1' in row]
    assert scores == pytest.approx([row['acc/top1'] for row in local if 'acc/top1' in row]) and len(scores) == 2

    updates = [u for r in found if r.WhichOneof('record_type') == 'config' for u in r.config.update]
    config = {u.key: json.loads(u.value_json) for u in updates}
    assert config['model']['backbone']['patch_size'] == [2, 4, 4] and config['resume'] is True
    assert config['model']['base']['file'] == f'{clips}/base.pth'
    assert {r.run.run_id for r in found if r.WhichOneof('record_type') == 'run'} == {'one'}
    assert not [r for r in found if r.WhichOneof('record_type') == 'artifact'], 'no code is taken along'


def test_without_wandb_only_a_run_that_asks_for_it_is_refused(ready, tmp_path, clips, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)  # as if it were not installed
    with pytest.raises(UserError, match=r'needs Weights & Biases, which is not installed: pip install'):
        train(ready(**watched(clips)))
    assert not (tmp_path / 'run').exists()
    train(ready(**QUICK, train_cfg__max_epochs=1))


def test_what_it_refuses_is_a_sentence(ready, clips, monkeypatch):
    monkeypatch.setenv('WANDB_MODE', 'offline')
    with pytest.raises(UserError, match=r'does not start .*nonsense'):
        train(ready(**watched(clips, nonsense=1)))
