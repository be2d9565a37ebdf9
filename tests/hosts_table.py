"""The table of docs/hosts.md: every method tried on every host of the tests.

``python tests/hosts_table.py`` writes it anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hf_hosts
import numpy as np
import timm_hosts
import tiny
import torch
from torch import nn

from vpetl_mm import build_model
from vpetl_mm.petl import adapt, find
from vpetl_mm.petl.proposal.methods import METHODS, tried, unreached_by
from vpetl_mm.spt.choice import Settings
from vpetl_mm.spt.plain import allocate
from vpetl_mm.spt.sensitivity import Sensitivity
from vpetl_mm.spt.units import units_of

PAGE = Path(__file__).parents[1] / 'docs/hosts.md'
BEGIN, END = '<!-- made by tests/hosts_table.py -->', '<!-- end -->'
# what stands in the table -> the layout's library, and hosts of the tests that all have to give the same row
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    'ViT, DINOv2, DeiT, SigLIP, MAE, CLIP': (
        'timm',
        ('vit', 'dinov2', 'deit', 'siglip', 'mae', 'clip', 'vit_qk_norm'),
    ),
    'EVA-02': ('timm', ('eva02', 'eva02_apart')),
    'DINOv3': ('timm', ('dinov3',)),
    'NaFlexViT': ('timm', ('naflex', 'naflex_padded', 'naflex_gated')),
    'Hiera': ('timm', ('hiera',)),
    'Swin': ('timm', ('swin',)),
    'ViT, of MultiheadAttention': ('torchvision', ('torchvision',)),
    'ViT, DINOv2': ('transformers', ('vit', 'dinov2')),
    'DINOv2, gated MLP': ('transformers', ('dinov2_gated',)),
    'DINOv3 ': ('transformers', ('dinov3', 'dinov3_gated')),
    'SigLIP': ('transformers', ('siglip',)),
    'SigLIP 2': ('transformers', ('siglip2', 'siglip2_bare')),
    'Swin ': ('transformers', ('swin',)),
    'VideoMAE ': ('transformers', ('videomae', 'videomae_bare')),
    'ViViT': ('transformers', ('vivit',)),
    'TimeSformer': ('transformers', ('timesformer',)),
    'V-JEPA 2': ('transformers', ('vjepa2', 'vjepa2_bare')),
    'ViT ': ('mmpretrain', ('vit', 'vit_layerscale')),
    'Swin  ': ('mmpretrain', ('swin2d',)),
    'VideoMAE': ('mmaction', ('videomae',)),
    'Video Swin': ('mmaction', ('swin3d',)),
}
COLUMNS = {
    'PATT': 'PATT',
    'PATT, concat': "PATT, mode='concat'",
    'AdaptMLP': 'AdaptMLP',
    'AdaptMLP, residual': "AdaptMLP, source='residual'",
    'LoRA': tuple(f'LoRA at {place}' for place in ('qkv', 'proj', 'fc1', 'fc2')),
    'SPT': 'SPT',
    'Prefix': 'Prefix',
    'Prompt, deep': 'Prompt',
    'Prompt, shallow': 'Prompt, deep=False',
    'ST-Adapter': 'STAdapter',
    'AIM': 'AIMTime',
}
FURTHER = {
    'SSF': 'SSF',
    'RepAdapter': 'RepAdapter',
    'DoRA': 'DoRA',
    'FacT': ('FacT', "FacT, form='TK'"),
    'VeRA': 'VeRA',
    'KAdaptation': 'KAdaptation',
    'Adapter+': 'AdapterPlus',
    'Convpass': 'Convpass',
    'Mona': 'Mona',
    'Compacter': 'Compacter',
    'MH-PA': 'MHPA',
    'DTL': 'DTL',
    'DTL+': 'DTL, kernel=3',
}
TABLES = (COLUMNS, FURTHER)
# what a refusal says -> why, below the table
REASONS = {
    'take no further tokens': 'windows, rotary positions or padding: no further tokens pass through the blocks',
    'in one call of': 'its attention multiplies its keys itself: no further ones can join',
    'not in the order of its tokens': 'its keys are not in the order of its tokens',
    'does not add': 'its block does not add the MLP to the stream in front of the second norm',
    'in a known grid': 'its tokens lie in no grid that the table knows (windows, any shape, an order of its own)',
    'has rotary positions': 'rotary positions, which frames have not',
    'attends to those of a clip already': 'it attends over the frames of a clip already',
    'is in windows': 'its attention is in windows',
    'of one width': 'its width changes from stage to stage',
    'is not made of slices': 'its MLP is not a whole number of times as wide, or its width changes in a block',
    'how many heads': 'its attention changes the number of its tokens and heads',
    'attends over time': 'it attends over the frames of a clip already',
}


def hosts() -> Iterator[tuple[str, str, nn.Module, Callable[[nn.Module], Any]]]:
    """Each host's library and name, a small model of it, and how that is run."""
    for name, host in timm_hosts.HOSTS.items():
        yield ('torchvision' if name == 'torchvision' else 'timm'), name, host.make(), host.out
    for name, host in hf_hosts.HOSTS.items():
        yield 'transformers', name, host.build(), lambda model, host=host: model(**host.inputs(2))
    for name, host in tiny.HOSTS.items():
        library = 'mmpretrain' if host.scope == 'mmpretrain' else 'mmaction'
        config = _of_two_stages(host.config()) if host.windows else host.config()
        yield library, name, build_model(config), lambda model, host=host: tiny.classify(model, host.sample())


def _of_two_stages(config: dict[str, Any]) -> dict[str, Any]:
    """A Swin whose width doubles once, as a real one's does three times."""
    model = config['model']
    model['backbone']['arch'].update(depths=[1, 1], num_heads=[2, 2])
    model['backbone']['out_indices'] = (1,)
    next(model[head] for head in ('head', 'cls_head') if head in model)['in_channels'] = 32
    return config


def row_of(model: nn.Module, run: Callable[[nn.Module], Any]) -> dict[str, str]:
    """Each column's refusal, '' where the method works."""
    columns = COLUMNS | FURTHER
    names = {n for given in columns.values() for n in ((given,) if isinstance(given, str) else given)}
    told = {n: d for n, d in METHODS.items() if n in names}
    # those of time look along the batch, in which each is a frame
    why = {name: why for name, _, why in tried(model, run, told)} | {'SPT': _spt(model, run)}
    return {c: next((why[n] for n in ((g,) if isinstance(g, str) else g) if why[n]), '') for c, g in columns.items()}


def _spt(model: nn.Module, run: Callable[[nn.Module], Any]) -> str:
    """'' where each kind of what SPT tunes reaches the output."""
    units = units_of(model.get_submodule(find(model).path))
    values = np.random.default_rng(0).random(sum(u.numel for u in units), dtype=np.float32)
    budget = sum(map(Settings(rank=2).most, units)) // 2
    plan = adapt(model, train=[], spt=allocate(model, Sensitivity(units, values), budget, rank=2, alpha=2))
    return 'left out' if unreached_by(run(model), plan.parameters()) else ''


def table() -> str:
    """The rows in Markdown, and the reasons."""
    rows = {
        (library, name): row_of(model.eval(), run) for library, name, model, run in hosts() if _stands(library, name)
    }
    reasons: dict[str, str] = {}
    lines: list[str] = []
    for columns in TABLES:
        lines += ['', f'| host | of | {" | ".join(columns)} |', f'| --- | --- |{" :-: |" * len(columns)}']
        for label, (library, names) in ROWS.items():
            same = [{c: _cell(rows[library, name][c], None) for c in columns} for name in names]
            assert all(row == same[0] for row in same), f'{label}: {same}'
            cells = [_cell(rows[library, names[0]][c], reasons) for c in columns]
            lines.append(f'| {label.strip()} | {library} | {" | ".join(cells)} |')
    notes = [f'- {letter}: {reason}' for reason, letter in reasons.items()]
    return '\n'.join(
        [*lines[1:], '', '`+`: every tensor of the method gets a gradient. What is refused, and why:', '', *notes]
    )


def _stands(library: str, name: str) -> bool:
    return any(library == of and name in names for of, names in ROWS.values())


def _cell(why: str, reasons: dict[str, str] | None) -> str:
    if not why:
        return '+'
    reason = next((reason for words, reason in REASONS.items() if words in why), None)
    assert reason is not None, why
    return reasons.setdefault(reason, 'abcdefghijklm'[len(reasons)]) if reasons is not None else reason


def written(page: str) -> str:
    """The page with the table of today."""
    return re.sub(f'{BEGIN}.*?{END}', lambda _: f'{BEGIN}\n\n{table()}\n\n{END}', page, flags=re.DOTALL)


if __name__ == '__main__':
    torch.manual_seed(0)
    PAGE.write_text(written(PAGE.read_text(encoding='utf-8')), encoding='utf-8')
