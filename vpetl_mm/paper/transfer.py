"""The table of transferring a real pre-trained ViT-S/14 to real images, and its page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..config import load_config
from ..errors import UserError
from .metafile import Entry, Ours
from .names import parse_name
from .table_format import Table, render

TRANSFER_PAGE = Path('docs', 'real_transfer.md')
METHODS = (
    *('full', 'fc', 'lora_r16', 'adaptformer_b64', 'bapat_b32', 'bapatzero_b32'),
    *('sptlora', 'sptlorashuffled', 'sptlorarandom', 'sptadapter', 'sptadaptershuffled', 'sptadapterrandom'),
)
BEGIN, END = '<!-- tools/tables.py --docs writes the table below -->', '<!-- and ends here -->'


def _experiment(method: str, pretrain: str) -> str:
    name, underscore, size = method.partition('_')
    return f'vits14_{name}_cifar100n50{underscore}{size}_{pretrain}'


EXPERIMENTS = (*(_experiment(m, 'dinov2') for m in METHODS), _experiment('bapat_b32', 'random'))


def transfer_table(ours: Mapping[str, Ours], counts: Mapping[str, int], configs: Path = Path('configs')) -> Table:
    """Build the table, with "not run" where a result is missing.

    Args:
        ours: results by experiment.
        counts: trainable parameters by experiment.
        configs: the folder of the configs.
    """
    rows = []
    for name in EXPERIMENTS:
        result, parsed = ours.get(name), parse_name(name)
        lr = load_config(configs / f'{name}.py').optim_wrapper.optimizer.lr
        shown = [f'{result.top5:.2f}', str(result.seeds)] if result else ['-', '-']
        count = counts.get(name, result and result.params)  # only a run knows SPT's
        full = counts[EXPERIMENTS[0]]
        trained = ['by budget', '-'] if count is None else [f'{count:,}', f'{100 * count / full:.1f}%']
        rows.append([parsed.method, parsed.pretrain, *trained, f'{lr:g}', top1_of(result), *shown, ''])
    head = ['method', 'backbone', 'trainable', 'share', 'lr', 'top-1', 'top-5', 'seeds', 'remark']
    notes = ['Top-1 and top-5 in percent on the 2,000 test images, last epoch; ±: standard deviation over seeds.']
    return Table('ViT-S/14 on CIFAR-100, 50 training images a class', head, rows, 2, notes)


def top1_of(result: Ours | None) -> str:
    """Format a result's top-1, with the spread over its seeds; "not run" without a result."""
    if result is None:
        return 'not run'
    return f'{result.top1:.2f}' + f' ± {result.spread:.2f}' * (result.seeds > 1)


def transfer_page(page: Path, entries: Sequence[Entry], counts: Mapping[str, int], configs: Path) -> str:
    """Return the page's text with its table rebuilt from the metafile.

    Args:
        page: the file, whose table stands between two comments; a missing file counts as a page without text.
        entries: the metafile's.
        counts: trainable parameters by experiment.
        configs: the folder of the configs.

    Raises:
        UserError: when the comments are missing.
    """
    text = page.read_text(encoding='utf-8') if page.is_file() else f'# A real transfer\n\n{BEGIN}{END}\n'
    if BEGIN not in text or END not in text:
        raise UserError(f'{page} has lost the two comments that its table stands between: {BEGIN} {END}.')
    table = transfer_table({e.name: e.ours for e in entries if e.ours}, counts, configs)
    body = render([table], 'md').partition('\n\n')[2]
    return re.sub(f'{re.escape(BEGIN)}.*{re.escape(END)}', lambda _: f'{BEGIN}\n\n{body}\n\n{END}', text, flags=re.S)
