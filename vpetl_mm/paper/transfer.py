"""The tables of transferring a real pre-trained ViT-S/14 to real images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..config import load_config
from .metafile import Ours
from .names import parse_name
from .table_format import Table

FURTHER = (
    *('ssf', 'repadapter_b8', 'dora_r16', 'facttt_r16', 'facttk_r32', 'vera_r256', 'kadaptation', 'adapterplus_b8'),
    *('convpass_b8', 'mona_b64', 'compacter_b12', 'mam_b192', 'mhpa_b30', 'dtl_r2'),
)
METHODS = (
    *('full', 'fc', 'lora_r16', 'adaptformer_b64', 'bapat_b32', 'bapatzero_b32'),
    *('sptlora', 'sptlorashuffled', 'sptlorarandom', 'sptadapter', 'sptadaptershuffled', 'sptadapterrandom'),
    *FURTHER,
)
HEAD = ['method', 'backbone', 'trainable', 'share', 'lr', 'top-1', 'top-5', 'seeds', 'remark']
TESTED = 'Top-1 and top-5 in percent on the 2,000 test images, last epoch; ±: standard deviation over seeds.'


def experiment(method: str, dataset: str, pretrain: str = 'dinov2') -> str:
    """Return the name of an experiment with ViT-S/14; ``method`` ends in its options, as in ``'lora_r16'``."""
    name, underscore, options = method.partition('_')
    return f'vits14_{name}_{dataset}{underscore}{options}_{pretrain}'


EXPERIMENTS = (*(experiment(m, 'cifar100n50') for m in METHODS), experiment('bapat_b32', 'cifar100n50', 'random'))


def transfer_table(ours: Mapping[str, Ours], counts: Mapping[str, int], configs: Path = Path('configs')) -> Table:
    """Build the table from results and trainable parameters by experiment, with "not run" for a missing result."""
    rows = [row_of(name, ours, counts, configs, counts[EXPERIMENTS[0]]) for name in EXPERIMENTS]
    title = 'ViT-S/14 on CIFAR-100, 50 training images a class'
    return Table(title, HEAD, rows, 2, [TESTED], spread='top-1')


def row_of(name: str, ours: Mapping[str, Ours], counts: Mapping[str, int], configs: Path, full: int) -> list[str]:
    """Return an experiment's row under :data:`HEAD`; ``full`` are the parameters of full tuning."""
    result, parsed = ours.get(name), parse_name(name)
    lr = load_config(configs / f'{name}.py').optim_wrapper.optimizer.lr
    shown = [f'{result.top5:.2f}', str(result.seeds)] if result else ['-', '-']
    count = counts.get(name, result and result.params)  # only a run knows SPT's
    trained = ['by budget', '-'] if count is None else [f'{count:,}', f'{100 * count / full:.1f}%']
    return [parsed.method, parsed.pretrain, *trained, f'{lr:g}', top1_of(result), *shown, '']


def top1_of(result: Ours | None) -> str:
    """Format a result's top-1, with the spread over its seeds; "not run" without a result."""
    if result is None:
        return 'not run'
    return f'{result.top1:.2f}' + f' ± {result.spread:.2f}' * (result.seeds > 1)
