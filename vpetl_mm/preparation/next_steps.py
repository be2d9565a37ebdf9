"""Prints the counts of a prepared data set and the commands to run next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vpetl_cli.shipped import configs, spoken

from ..datasets.vtab1k import token
from .found import MEDIA, PrepareArgs

CONFIGS = {
    'ssv2': 'configs/swin_bapat_ssv2_b128.py',
    'hmdb51': 'configs/swin_bapat_hmdb51_b128.py',
    'cifar100': 'configs/vit_bapat_cifar100_b64_in21k.py',
    'svhn': 'configs/vit_bapat_svhn_b64_in21k.py',
    'food101': 'configs/vit_bapat_food101_b64_in21k.py',
}
VIDEO_CONFIG = """\
_base_ = '../swin_bapat_ssv2_b128.py'
_mine = dict(
    data_prefix=dict(video='{out}/{media}'), num_classes={classes}, metainfo=dict(classes='{out}/classes.txt')
)
holdout = None  # val.txt is what it validates on
default_hooks = dict(checkpoint=dict(save_best='acc/top1'))
train_dataloader = dict(dataset=dict(ann_file='{out}/train.txt', **_mine))
val_dataloader = dict(dataset=dict(ann_file='{out}/val.txt', **_mine))
test_dataloader = dict(dataset=dict(ann_file='{out}/test.txt', **_mine))
model = dict(cls_head=dict(num_classes={classes}))
"""
SMALL_VIDEO = '../_base_/small_video.py'  # a small model, from scratch
IMAGE_CONFIG = """\
_base_ = '../vit_bapat_food101_b64_in21k.py'
_mine = dict(
    _delete_=True, type='PETLImageList', data_root='{out}', data_prefix='{media}', classes='{out}/classes.txt'
)
holdout = None  # val.txt is what it validates on
default_hooks = dict(checkpoint=dict(save_best='acc/top1'))
train_dataloader = dict(dataset=dict(ann_file='train.txt', pipeline=_base_.train_pipeline, **_mine))
val_dataloader = dict(dataset=dict(ann_file='val.txt', pipeline=_base_.test_pipeline, **_mine))
test_dataloader = dict(dataset=dict(ann_file='test.txt', pipeline=_base_.test_pipeline, **_mine))
model = dict(head=dict(num_classes={classes}))
# for weights of another kind, add the lines that tools/convert_checkpoint.py prints for them, mean and std included
"""


def own_config(state: dict[str, Any], out: str) -> str:
    """Return the lines of a config, in a folder of configs/, that trains on your own data."""
    text = VIDEO_CONFIG if state['kind'] == 'video' else IMAGE_CONFIG
    return text.format(out=out, media=MEDIA[state['kind']], classes=state['classes'])


def show(args: PrepareArgs, state: dict[str, Any]) -> None:
    """Print the counts and the next commands."""
    table = Table('list', title=f'{args.name} in {args.out}')
    table.add_column('samples', justify='right')
    table.add_column('classes', justify='right')
    for name, count in state['counts'].items():
        table.add_row(name, f'{count:,}', f'{state["classes_in"][name]:,} of {state["classes"]:,}')
    _print(table, args)
    if args.name in CONFIGS:
        _say(f'Train: tools/train.py {CONFIGS[args.name]}')
        return
    if state['kind'] == 'video':
        _say(f'A first try without pre-trained weights: the lines below, with _base_ = {SMALL_VIDEO!r}')
    lines = own_config(state, str(args.out))
    _say(f'Train: tools/train.py configs/mine/{args.name}.py, with these lines in it:\n\n{lines}')


def show_tasks(args: PrepareArgs, states: dict[str, dict[str, Any]]) -> None:
    """Print the counts of each task of VTAB-1k and the next commands."""
    names = list(next(iter(states.values()))['counts'])
    table = Table('task', title=f'{args.name} in {args.out}')
    for name in (*names, 'classes', 'missing files'):
        table.add_column(name, justify='right')
    for task, state in states.items():
        counts = (*(state['counts'][name] for name in names), state['classes'], state['missing'])
        table.add_row(task, *(f'{count:,}' for count in counts))
    _print(table, args)
    _say(f'Train: tools/train.py configs/vit_lora_{token(next(iter(states)))}_r8_in21k.py')


def _print(table: Table, args: PrepareArgs) -> None:
    Console().print(table)
    where = '' if str(args.out) == f'data/{args.name}' else f' --out {args.out}'
    _say(f'Open every file once, before training does: tools/prepare_data.py check {args.name}{where}')


def _say(text: str) -> None:
    """Print a command that works from this folder, which may have no ``configs/`` of its own."""
    print(spoken(text if configs() == Path('configs') else text.replace("'../", f"'{configs()}/")))
