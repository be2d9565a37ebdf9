"""The space that ``--search default`` takes for each method.

The learning rate always: a decade below the config's own to a decade above. Beside it what a method's paper varies,
by the type of the delta, and the config's own value. Where a paper gives no range, the values lie around its default,
and the row says "ours".
"""

from __future__ import annotations

from typing import Any

from mmengine import Config

from ..engine.entries import at
from ..errors import UserError
from .keys import own_value
from .space import Space, parse_space

RATE = 'optim_wrapper.optimizer.lr'
DECADE = 10.0

# type of a delta -> its options
DELTAS: dict[str, dict[str, str]] = {
    # V-PETL: bottlenecks and strengths of its Tables 4 to 6
    'PATT': dict(d_bottle='[32,64,128,256]', scale='uniform(0.1,1)'),
    # AdaptFormer: its ablations of the middle dimension and of s
    'AdaptMLP': dict(d_bottle='[16,32,64,256]', scale='log(0.01,0.2)'),
    # LoRA: the ranks that it compares, without 1 and 2
    'LoRA': dict(rank='[4,8,16,64]'),
    # as LoRA, whose ranks it takes over
    'DoRA': dict(rank='[4,8,16,64]'),
    # SPT-Adapter: ours
    'LinearAdapter': dict(d_bottle='[4,8,16,32]'),
    # V-PETL's baseline: ours
    'Prefix': dict(num_tokens='[4,16,64,128]'),
    # VPT: the lengths that it chooses from for each task
    'Prompt': dict(num_tokens='[1,5,10,50,100]'),
    # RepAdapter: s chosen for each task; the widths are ours
    'RepAdapter': dict(d_bottle='[4,8,16]', scale='log(0.1,10)'),
    # FacT: s chosen for each task from 0.01 to 100
    'FacT': dict(rank='[4,8,16]', scale='log(0.01,100)'),
    # VeRA: ours
    'VeRA': dict(rank='[64,256,1024]'),
    # KAdaptation: s is ours
    'KAdaptation': dict(scale='log(0.1,10)'),
    # Adapter+: ranks that it compares
    'AdapterPlus': dict(d_bottle='[4,8,16,32]'),
    # Convpass: s chosen for each task from 0.01 to 100
    'Convpass': dict(scale='log(0.01,100)'),
    # Mona: widths that it compares
    'Mona': dict(d_bottle='[32,64,128]'),
    # MAM: the lengths are ours
    'MHPA': dict(num_tokens='[10,30,100]'),
    # DTL: ours
    'DTL': dict(rank='[2,4,8]'),
    # ST-Adapter, AIM: ours
    'STAdapter': dict(d_bottle='[96,192,384]'),
    'AIMTime': dict(d_bottle='[48,96,192]'),
    # nothing but the learning rate
    'Compacter': {},
    'FrameEmbedding': {},
    'Sparse': {},
    'SSF': {},
}
# a name in ``train`` -> further settings: full tuning wants a lower rate for the backbone than for a new head; fc,
# BitFit and single weights (``head``, ``bias``, ``norm1``, ...) have the learning rate alone
TRAINED: dict[str, dict[str, str]] = {
    'all': {'optim_wrapper.paramwise_cfg.groups.backbone.lr_mult': 'log(0.01,1)'},
}
# SPT: low-rank updates, and single weights and vectors of the backbone, at rates of their own
SPT = {'optim_wrapper.paramwise_cfg.groups.backbone.lr_mult': 'log(0.01,1)'}


def default_space(cfg: Config) -> dict[str, Space]:
    """Return the space of a config's method, by dotted key.

    Raises:
        UserError: when the config has no learning rate.
    """
    rate = at(cfg, RATE)
    if not isinstance(rate, (int, float)) or rate <= 0:
        raise UserError(f'--search default begins at the learning rate of the config, and {RATE} is {rate!r}.')
    petl = cfg.model.get('petl') or {}
    texts: dict[str, Any] = {}
    for name in petl.get('train') or ():
        texts |= TRAINED.get(name, {})
    if petl.get('spt'):
        texts |= SPT
    for name, delta in (petl.get('deltas') or {}).items():
        own = DELTAS.get(str(delta.get('type')), {}) if delta else {}
        texts |= {f'model.petl.deltas.{name}.{option}': text for option, text in own.items()}
    rates = Space('log', (float(f'{rate / DECADE:.6g}'), float(f'{rate * DECADE:.6g}')))
    return {
        RATE: rates,
        **{key: _with_own(parse_space(key, text), own_value(cfg, key)) for key, text in texts.items()},
    }


def _with_own(space: Space, own: Any) -> Space:
    """Return a space that has the config's own value as well, with which the first trial is run."""
    if own in space or own in space.values or type(own) not in (int, float) or (space.kind == 'log' and own <= 0):
        return space
    if space.kind == 'list':
        return Space('list', tuple(sorted((*space.values, own))))
    return Space(space.kind, (min(own, space.values[0]), max(own, space.values[1])))
