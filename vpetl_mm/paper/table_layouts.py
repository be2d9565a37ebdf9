"""The rows and columns of the paper's tables, in its order; the figures are in the metafile."""

from __future__ import annotations

from dataclasses import dataclass

from ..datasets.vtab1k import TOKENS
from ..errors import unknown


@dataclass(frozen=True)
class Column:
    """A group of figures: its heading, its data set, and the suffix of its cells (Table 4)."""

    heading: str
    dataset: str
    suffix: str = ''


@dataclass(frozen=True)
class TableRow:
    """A row: its labels, one per label column, and its cell in the metafile."""

    labels: tuple[str, ...]
    cell: str


@dataclass(frozen=True)
class TableLayout:
    """One table.

    Args:
        title: what it shows.
        labels: the headings of the label columns.
        columns: the groups of figures.
        rows: in the paper's order.
        params: the printed parameter counts: ``'own'`` one per group; ``'mean5'`` one per row, the mean over the
            groups; ``'unprinted'`` none.
    """

    title: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    params: str = 'own'


SSV2, HMDB51 = Column('SSv2', 'ssv2'), Column('HMDB51', 'hmdb51')
TASKS = (Column('CIFAR-100', 'cifar100'), Column('SVHN', 'svhn'), Column('Food-101', 'food101'), SSV2, HMDB51)
DATASETS = {column.dataset: column.heading for column in TASKS} | dict(cifar100n50='CIFAR-100 (50 images a class)')
DATASETS |= {f'cifar100shot{n}': f'CIFAR-100 ({n} images a class, 20 epochs)' for n in (5, 10, 50)}
DATASETS |= {'vtab1k': 'VTAB-1k', **{word: f'VTAB-1k {task}' for word, task in TOKENS.items()}}
PRETRAIN = {'k400': 'K400', 'k600': 'K600', 'in22k': 'IN-22K'}
POSITIONS = (
    'full',
    'fc',
    'norm1',
    'attn.proj',
    'attn.qkv',
    'attn.softmax',
    'norm2',
    'mlp.fc1',
    'mlp.fc2',
    'downsample',
)
SWIN = (
    *('full', 'fc', 'lora/16', 'bitfit', 'adaptformer/64', 'prefix/128'),
    *(f'{method}/{size}' for method in ('patt', 'bapat') for size in (32, 64, 128, 256)),
)
VARIANTS = {
    'full': 'Full tuning',
    'concat_kv': 'Concat (K, V)',
    'tokens_kv': 'No Z (K, V)',
    'qk': '(Q, K)',
    'kv': '(K, V)',
    'qv': '(Q, V)',
    'qkv': '(Q, K, V)',
}
METHODS = dict(full='Full tuning', fc='FC', lora='LoRA', bitfit='BitFit', adaptformer='AdaptFormer', vpt='VPT')
METHODS |= dict(prefix='Prefix-tuning', patt='PATT', bapat='BAPAT', sptlora='SPT-LoRA', sptadapter='SPT-Adapter')
METHODS |= dict(ssf='SSF', repadapter='RepAdapter', dora='DoRA', facttt='FacT-TT', facttk='FacT-TK', vera='VeRA')
METHODS |= dict(
    kadaptation='KAdaptation', adapterplus='Adapter+', convpass='Convpass', mona='Mona', compacter='Compacter'
)
METHODS |= dict(mam='MAM adapter', mhpa='MH-PA', dtl='DTL')


def _method(cell: str) -> tuple[str, str]:
    """Return the labels of a cell, such as ('BAPAT', '32') for 'bapat/32'."""
    method, _, size = cell.partition('/')
    return METHODS[method], size or '-'


def _vit(table: str, *methods: str) -> tuple[TableRow, ...]:
    rows = [*methods, *(f'bapat/{size}' for size in (32, 64, 128, 256))]
    return tuple(TableRow(_method(m), f'{table}/{m}') for m in rows)


_WITH, _WITHOUT = Column('with FC', 'hmdb51', '/with_fc'), Column('without FC', 'hmdb51', '/without_fc')
_TABLE3 = [(method, 'k400', 8) for method in SWIN]
_TABLE3 += [('bapat/256', 'k600', 8), ('bapat/256', 'in22k', 8), ('bapat/128', 'k400', 16)]
_TABLE4 = [(size, 'k400', 8) for size in (32, 64, 128, 256)]
_TABLE4 += [(256, 'k600', 8), (128, 'k400', 16), (128, 'k400', 32)]
_TABLE5 = [(METHODS[m], '-', m) for m in ('full', 'fc', 'adaptformer')]
_TABLE5 += [('BAPAT', s, s) for s in ('0.2', '0.5', '0.8', '1.0')]
LAYOUTS = {
    'table1': TableLayout(
        'Table 1. Single positions of Video Swin-B tuned alone',
        ('position',),
        (SSV2,),
        tuple(TableRow((p,), f'T1/{p}') for p in POSITIONS),
    ),
    'table3': TableLayout(
        'Table 3. Video Swin-B',
        ('method', 'd_bottle', 'pre-training', 'frames'),
        (SSV2, HMDB51),
        tuple(TableRow((*_method(m), PRETRAIN[p], str(f)), f'T3/{m}/{p}/f{f}') for m, p, f in _TABLE3),
    ),
    'table4': TableLayout(
        'Table 4. Swin-BAPAT on HMDB51 with and without a trained FC layer',
        ('d_bottle', 'pre-training', 'frames'),
        (_WITH, _WITHOUT),
        tuple(TableRow((str(b), PRETRAIN[p], str(f)), f'T4/{b}/{p}/f{f}') for b, p, f in _TABLE4),
    ),
    'table5': TableLayout(
        'Table 5. The scale s of PATT, Swin-BAPAT with d_bottle 128',
        ('method', 's'),
        (SSV2, HMDB51),
        tuple(TableRow((method, s), f'T5/{cell}') for method, s, cell in _TABLE5),
        'unprinted',
    ),
    'table6': TableLayout(
        'Table 6. Where and how PATT is inserted, Swin-BAPAT with d_bottle 128, K600',
        ('variant',),
        (SSV2, HMDB51),
        tuple(TableRow((text,), f'T6/{key}') for key, text in VARIANTS.items()),
    ),
    'table7': TableLayout(
        'Table 7. ViT-B, supervised pre-training: ImageNet-21k, or VideoMAE and K400',
        ('method', 'd_bottle'),
        TASKS,
        _vit('T7', 'full', 'fc', 'adaptformer/64'),
        'mean5',
    ),
    'table8': TableLayout(
        'Table 8. ViT-B, self-supervised pre-training: MAE or VideoMAE',
        ('method', 'd_bottle'),
        TASKS,
        _vit('T8', 'full', 'fc', 'vpt', 'adaptformer/64'),
        'mean5',
    ),
}


def table_layout(table: str) -> TableLayout:
    """Return the layout of a table such as ``'table3'``; a :class:`UserError` lists the valid names."""
    if table not in LAYOUTS:
        raise unknown('table', table, LAYOUTS)
    return LAYOUTS[table]
