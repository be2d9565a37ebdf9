"""The tables of few-shot transfer: a real pre-trained ViT-S/14 and 5, 10 or 50 real images a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..config import load_config
from .metafile import APART, Entry, Ours
from .names import parse_name
from .table_format import Table
from .transfer import FURTHER, HEAD, TESTED, experiment, row_of, top1_of

CONTROLS_OF_SPT = ('sptlorashuffled', 'sptlorarandom', 'sptadaptershuffled', 'sptadapterrandom')
METHODS = (
    *('full', 'fc', 'bitfit', 'vpt', 'lora_r16', 'adaptformer_b64', 'bapat_b32', 'bapatzero_b32'),
    *('sptlora', 'sptadapter', *CONTROLS_OF_SPT),
    *FURTHER,
)
# one of each kind of method, on a backbone that was not pre-trained
CONTROLS = ('full', 'fc', 'bitfit', 'vpt', 'lora_r16', 'adaptformer_b64', 'bapat_b32', 'sptlora')
SCALES = ('full', 'fc', 'lora_r16', 'bapat_b32')
# PATT's settings, as the paper varies them on video (Tables 3, 5 and 6)
PATT = (
    *('bapat_b32', 'bapatzero_b32', 'bapatlearned_b32', 'bapat_b8', 'bapat_b128'),
    *('bapat_b32_s02', 'bapat_b32_s05', 'bapat_b32_s10', 'bapatqk_b32', 'bapatqv_b32', 'bapatqkv_b32'),
)
# of SPT-LoRA: in thousands of parameters, by the word in a config's name; a name without has LoRA's
BUDGETS = {'_100k': 100, '': 295, '_1000k': 1000}
# what its sensitivities are
MEASURED = {
    'sptlora': 'gradients of batches, the head as it starts (as published)',
    'sptloraprobe': 'gradients of batches, the head trained',
    'sptlorasample': 'gradients of samples, the head as it starts',
    'sptloraprobesample': 'gradients of samples, the head trained',
    'sptlorashuffled': 'a control: the published ones, exchanged and mixed',
    'sptlorarandom': 'a control: random numbers',
}
SHOT10 = 'cifar100shot10'
# by table, in the order in which they are run
EXPERIMENTS = {
    'fewshot': tuple(experiment(m, SHOT10) for m in METHODS),
    'fewshot_random': tuple(experiment(m, SHOT10, 'random') for m in CONTROLS),
    'fewshot5': tuple(experiment(m, 'cifar100shot5') for m in SCALES),
    'fewshot50': tuple(experiment(m, 'cifar100shot50') for m in SCALES),
    'fewshot_spt': tuple(experiment(m + b, SHOT10) for b in BUDGETS for m in MEASURED),
    'fewshot_patt': tuple(experiment(m, SHOT10) for m in PATT),
}
# what has a search of its own; the rest takes the rate of the config that it inherits
TUNED = tuple(
    n for t in ('fewshot', 'fewshot_random') for n in EXPERIMENTS[t] if n.split('_')[1] not in CONTROLS_OF_SPT
)
STUDIED = experiment('sptlora', SHOT10)  # whose parts have learning rates apart
PARTS = dict(zip(APART, ('single weights', 'whole vectors', 'low-rank updates'), strict=True))
TOP1 = 'Top-1 in percent on the 2,000 test images, last epoch; ±: standard deviation over seeds.'
HOURS = 'hours: of all seeds together, from start to test, on one core; interrupted attempts do not count.'
HELD_OUT = 'Top-1 in percent on 200 of the 1,000 training images, after 10 epochs on the other 800, seed 0.'
INHERITED = 'Rows without a search of their own have the learning rate that was chosen for {}.'
TITLE = 'ViT-S/14 on CIFAR-100, {} training images a class, 20 epochs'
IMAGES = dict(fewshot5=5, fewshot50=50)  # a class, where not 10


def few_shot_table(
    table: str, ours: Mapping[str, Ours], counts: Mapping[str, int], configs: Path = Path('configs')
) -> Table:
    """Build a table from results and trainable parameters by experiment, with "not run" for a missing result.

    Args:
        table: a key of :data:`EXPERIMENTS`.
        ours, counts: by experiment.
        configs: the folder of the configs.
    """
    title = TITLE.format(IMAGES.get(table, 10)) + ', random backbone' * (table == 'fewshot_random')
    if table == 'fewshot_spt':
        return _spt_table(f'{title}: what SPT-LoRA measures', ours)
    if table == 'fewshot_patt':
        return _patt_table(f"{title}: PATT's settings", ours, counts)
    names = EXPERIMENTS[table]
    rows = []
    for name in names:
        *row, remark = row_of(name, ours, counts, configs, counts[names[0]])
        if not load_config(configs / f'{name}.py').get('trials'):
            row[HEAD.index('lr')] = '-'  # not looked for yet
        rows.append([*row, _hours(ours.get(name)), remark])
    head = [*HEAD[:-1], 'hours', HEAD[-1]]
    return Table(title, head, rows, 2, [TESTED, HOURS], spread='top-1')


def _hours(result: Ours | None) -> str:
    return f'{result.hours:.2f}' if result and result.hours else '-'


def _spt_table(title: str, ours: Mapping[str, Ours]) -> Table:
    """Build the table of top-1 by measurement and budget."""
    rows = []
    for method, measured in MEASURED.items():
        results = [ours.get(experiment(method + b, SHOT10)) for b in BUDGETS]
        rows.append([measured, *map(top1_of, results), '/'.join(str(r.seeds) if r else '0' for r in results), ''])
    head = ['sensitivity', *(f'{b / 1000:g}M' for b in BUDGETS.values()), 'seeds', 'remark']
    return Table(title, head, rows, 1, [TOP1, INHERITED.format('sptlora')])


def _patt_table(title: str, ours: Mapping[str, Ours], counts: Mapping[str, int]) -> Table:
    """Build the table of top-1 by PATT's settings; the first row is as published."""
    rows = []
    for name in EXPERIMENTS['fewshot_patt']:
        parsed, result = parse_name(name), ours.get(name)
        variant = parsed.method.removeprefix('bapat')
        settings = [str(parsed.size), f'{parsed.scale:g}' + ' at first, learned' * (variant == 'learned')]
        settings += [variant if variant in ('qk', 'qv', 'qkv') else 'kv', 'zero' if variant == 'zero' else 'default']
        count = counts.get(name, result and result.params)
        rows.append(
            [*settings, f'{count:,}' if count else '-', top1_of(result), str(result.seeds) if result else '-', '']
        )
    head = ['d_bottle', 's', 'slots', 'init', 'trainable', 'top-1', 'seeds', 'remark']
    return Table(title, head, rows, 4, [TOP1, INHERITED.format('the first')], spread='top-1')


def rates_table(entries: Sequence[Entry], configs: Path = Path('configs')) -> Table:
    """Build the table of the searches for a learning rate, from the metafile's entries."""
    rows = []
    for entry in (e for e in entries if e.search and e.name in TUNED):
        parsed = parse_name(entry.name)
        chosen = load_config(configs / f'{entry.name}.py').optim_wrapper.optimizer.lr
        rows.append([parsed.method, parsed.pretrain, f'{chosen:g}', _tried(entry.search), ''])
    head = ['method', 'backbone', 'chosen', 'top-1 by learning rate', 'remark']
    return Table('Learning rates that were tried', head, rows, 4, [HELD_OUT])


def apart_table(entries: Sequence[Entry], configs: Path = Path('configs')) -> Table:
    """Build the table of what each part of SPT-LoRA gets from a learning rate of its own."""
    (entry,) = (e for e in entries if e.name == STUDIED)
    rate = load_config(configs / f'{STUDIED}.py').optim_wrapper.optimizer.lr
    rows = []
    for part, name in PARTS.items():
        found = entry.apart.get(part)
        tried = dict(sorted({**found, 1: entry.search.get(rate)}.items())) if found else {}
        rows.append([name, _tried(tried) or 'not run', ''])
    head = ['part', "top-1 by factor on the part's learning rate", 'remark']
    return Table('Learning rates apart, SPT-LoRA', head, rows, 2, [HELD_OUT])


def _tried(search: Mapping[float, float | None]) -> str:
    return ', '.join(f'{value:g}: {"failed" if top1 is None else f"{top1:g}"}' for value, top1 in search.items())
