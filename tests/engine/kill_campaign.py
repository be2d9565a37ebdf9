"""Kills training runs at random moments, resumes them, and compares them with one that was left alone."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import HistoryBuffer
from small_experiment import REPO, content
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vpetl_mm.datasets.demo_clips import make_demo_clips

CONFIG = """\
_base_ = '{repo}/configs/demo_bapat.py'
_pipeline = [*_base_.train_dataloader.dataset.pipeline]
_fixed = [dict(step, test_mode=True) if step['type'] == 'SampleFrames' else step for step in _pipeline]
_mine = dict(data_prefix=dict(video='{root}'), num_classes={classes}, metainfo=None)
_loader = dict(batch_size=4, num_workers=2)
holdout = None
train_dataloader = dict(dataset=dict(ann_file='{root}/train.txt', pipeline=_pipeline, **_mine), **_loader)
val_dataloader = dict(
    dataset=dict(ann_file='{root}/val.txt', held_out=False, pipeline=_fixed, **_mine), **_loader
)
test_dataloader = None
model = dict(base=None, cls_head=dict(num_classes={classes}))
train_cfg = dict(max_epochs={epochs})
param_scheduler = [dict(type='CosineAnnealingLR', T_max={epochs}, by_epoch=True, convert_to_iter_based=True)]
default_hooks = dict(checkpoint=dict(save_best='acc/top1'), logger=dict(interval=1))
"""
# what tells the time, the place, or where the loop stood while it wrote: it differs between runs that are the same
PASSING = re.compile(
    r'meta\.(time|cfg|experiment_name)|message_hub\..*(time|memory|cfg|experiment_name)'
    r'|message_hub\.runtime_info\.(epoch|iter|loop_stage)'
)
PLACES = re.compile(r'message_hub\.runtime_info\.(best_ckpt|last_ckpt)')


def write_experiment(root: Path, epochs: int) -> Path:
    """Lists and a config of a small Video Swin with BAPAT, on demo clips."""
    make_demo_clips(root, dict(target_train=18), progress=False)
    rows = (root / 'target_train.txt').read_text().splitlines()
    (root / 'train.txt').write_text('\n'.join(r for i, r in enumerate(rows) if i % 3))
    (root / 'val.txt').write_text('\n'.join(rows[::3]))
    classes = 1 + max(int(r.split()[-1]) for r in rows)
    (root / 'killed.py').write_text(CONFIG.format(repo=REPO, root=root, classes=classes, epochs=epochs))
    return root / 'killed.py'


def finishes(config: Path, work_dir: Path, seconds: float) -> bool:
    """Whether tools/train.py, which resumes if it can, ends within ``seconds``; otherwise its group is killed.

    Raises:
        RuntimeError: when it ends with an error.
    """
    command = [sys.executable, 'tools/train.py', str(config), '--work-dir', str(work_dir)]
    command += ['--resume'] if list(work_dir.glob('epoch_*.pth')) else []
    with tempfile.TemporaryFile('w+') as said:
        env = dict(os.environ, OMP_NUM_THREADS='1')
        process = subprocess.Popen(
            command, cwd=REPO, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False
        if status:
            said.seek(0)
            raise RuntimeError(f'training ended with {status}: {said.read()[-2000:]}')
    return True


def campaign(root: Path, kills: int, epochs: int, seed: int) -> list[str]:
    """Train once undisturbed and then under ``kills`` kills; what then differs.

    SIGKILL goes to the whole process group, the loader's workers too, at a moment drawn evenly from the duration of
    the undisturbed run, start-up, saving and validation included. After a run that finishes first, another starts.
    """
    config, draw = write_experiment(root, epochs), random.Random(seed)
    started = time.monotonic()
    finishes(config, root / 'whole', 3600)
    seconds = time.monotonic() - started
    wrong: list[str] = []
    while kills:
        work_dir = Path(tempfile.mkdtemp(dir=root))
        while not finishes(config, work_dir, draw.uniform(0, seconds) if kills else 3600):
            kills -= 1
        wrong += differences(root / 'whole', work_dir)
    return wrong


def differences(whole: Path, other: Path) -> list[str]:
    """What differs between the files of two runs, but for times and places."""
    names = [{p.name for p in run.glob('*.pth*')} for run in (whole, other)]
    wrong = [f'{name} is not in both' for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        one, two = (dict(flat(content(run / name))) for run in (whole, other))
        wrong += [f'{name}: {k}' for k in sorted({*one, *two}) if not same(k, one.get(k), two.get(k))]
    last = [Path((run / 'last_checkpoint').read_text()).name for run in (whole, other)]
    wrong += [] if last[0] == last[1] else [f'last_checkpoint names {last[1]}']
    one, two = curves(whole), curves(other)
    return wrong + [f'curve {k} at step {s}' for k, s in sorted({*one, *two}) if one.get((k, s)) != two.get((k, s))]


def flat(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings and lists, by dotted name."""
    if isinstance(value, HistoryBuffer):
        value = [part.tolist() for part in value.data]
    if isinstance(value, (dict, list, tuple)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(part, f'{name}.{key}' if name else str(key))
    elif not PASSING.match(name):
        yield name, Path(value).name if PLACES.fullmatch(name) else value


def same(name: str, one: Any, two: Any) -> bool:
    """Whether two leaves are the same to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    return type(one) is type(two) and one == two


def curves(run: Path) -> dict[tuple[str, int], set[float]]:
    """Each value that TensorBoard shows of a run and all its restarts, by tag and step."""
    found: dict[tuple[str, int], set[float]] = {}
    for folder in run.glob('*/vis_data'):
        events = EventAccumulator(str(folder), dict(scalars=0)).Reload()
        for tag in events.Tags()['scalars']:
            for event in events.Scalars(tag) if 'time' not in tag and 'memory' not in tag else ():
                found.setdefault((tag, event.step), set()).add(event.value)
    return found
