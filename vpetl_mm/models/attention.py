"""Our attention and blocks instead of a host's own, with the same weights."""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODELS
from torch import nn

from ..errors import UserError
from ..petl import host_of, layout_of
from .token_attention import PETLMultiheadAttention, PETLVideoMAEAttention
from .videomae_block import PETLVideoMAEBlock
from .window_attention import FastWindowAttention3D, FastWindowMSA

# the place table's key -> the attention that is taken unless petl.attention says otherwise
DEFAULTS = {
    'mmaction.SwinTransformer3D': FastWindowAttention3D,
    'mmaction.VisionTransformer': PETLVideoMAEAttention,
    'mmpretrain.VisionTransformer': PETLMultiheadAttention,
    'mmpretrain.SwinTransformer': FastWindowMSA,
}
# blocks whose MLP branch is a method, for deltas that read the residual stream
BLOCKS = {'mmaction.VisionTransformer': PETLVideoMAEBlock}


def exchange_attention(backbone: nn.Module, petl: dict[str, Any]) -> None:
    """Exchange the host's attention and blocks for ours, with the same weights.

    Args:
        backbone: without deltas.
        petl: may have ``attention``, ``dict(type=...)`` of a registered class; None keeps the host's own attention.

    Raises:
        UserError: for an attention that does not exist or is for another backbone.
    """
    host, layout = host_of(backbone), layout_of(backbone)
    if host in BLOCKS:
        for block in layout.blocks(backbone):
            block.__class__ = BLOCKS[host]
    default = DEFAULTS.get(host)
    config = petl.get('attention', default and dict(type=default.__name__))
    if config is None:
        return
    if default is None:
        raise UserError(f'petl.attention: {host} keeps its own attention, which deltas can sit in; leave it out.')
    cls = _attention_type(config)
    for site in list(layout.sites(backbone, 'attn')):
        if not issubclass(cls, type(site.host)):
            raise UserError(
                f'petl.attention: {cls.__name__} is not for {type(backbone).__name__}, whose own is '
                f'{default.__name__}.'
            )
        leaf = take_over(MODELS.build({**cls.like(site.host), **config}), site.host)
        parent, _, name = site.name.rpartition('.')
        setattr(backbone.get_submodule(parent), name, leaf)


def _attention_type(config: Any) -> type[nn.Module]:
    there = {n: m for n, m in MODELS.module_dict.items() if hasattr(m, 'like')}
    name = config.get('type') if isinstance(config, dict) else config
    if not isinstance(config, dict) or name not in there:
        raise UserError(
            f'petl.attention must be None or dict(type=...) with one of {", ".join(there)}; got {config!r}.'
        )
    return there[name]


def take_over(leaf: nn.Module, host: nn.Module) -> nn.Module:
    """Return ``leaf`` with the modules, parameters and buffers of ``host`` itself."""
    for kind in ('_parameters', '_buffers', '_modules'):
        getattr(leaf, kind).update(getattr(host, kind))
    return leaf.train(host.training)
