"""Where things are in each backbone: one entry a model, never a copied backbone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from ..errors import UserError
from .delta import Site


@dataclass(frozen=True)
class Layout:
    """The place table's entry of one backbone class. Patterns are regular expressions of whole names.

    Args:
        places: place name -> pattern of module paths, for deltas.
        groups: train name -> pattern of parameter paths, for ``train``.
        attention: pattern of the attention modules that can be exchanged for a faster equal.
        residual: (pattern of blocks, the method that computes the MLP branch, the MLP's attribute), for
            deltas that read the residual stream.
        fused: the places whose output is q, k and v side by side.
    """

    places: Mapping[str, str]
    groups: Mapping[str, str]
    attention: str | None = None
    residual: tuple[str, str, str] | None = None
    fused: tuple[str, ...] = ('qkv',)

    def sites(self, backbone: nn.Module, place: str) -> Iterator[Site]:
        """The hosts at ``place``, in the backbone's order."""
        pattern = re.compile(self.places[place])
        for name, module in backbone.named_modules():
            if pattern.fullmatch(name):
                first, last = _ends(module)
                slots = 'qkv' if place in self.fused else ''
                yield Site(name, module, place, first.in_features, last.out_features, slots)

    def blocks(self, backbone: nn.Module) -> Iterator[nn.Module]:
        """The blocks that can add residual-stream deltas."""
        assert self.residual is not None
        pattern = re.compile(self.residual[0])
        yield from (m for n, m in backbone.named_modules() if pattern.fullmatch(n))


def _ends(module: nn.Module) -> tuple[nn.Linear, nn.Linear]:
    linears = [module] if isinstance(module, nn.Linear) else [module.fc1, module.fc2]
    return linears[0], linears[-1]


_SWIN3D_BLOCK = r'layers\.\d+\.blocks\.\d+'

LAYOUTS: dict[str, Layout] = {
    # mmaction2's Video Swin
    'SwinTransformer3D': Layout(
        places=dict(
            qkv=rf'{_SWIN3D_BLOCK}\.attn\.qkv',
            proj=rf'{_SWIN3D_BLOCK}\.attn\.proj',
            mlp=rf'{_SWIN3D_BLOCK}\.mlp',
            fc1=rf'{_SWIN3D_BLOCK}\.mlp\.fc1',
            fc2=rf'{_SWIN3D_BLOCK}\.mlp\.fc2',
        ),
        groups={
            'bias': r'.*\.bias',
            'norm': r'(.*\.)?norm\d*\.(weight|bias)',
            'norm1': rf'{_SWIN3D_BLOCK}\.norm1\.(weight|bias)',
            'norm2': rf'{_SWIN3D_BLOCK}\.norm2\.(weight|bias)',
            'attn.qkv': rf'{_SWIN3D_BLOCK}\.attn\.qkv\.(weight|bias)',
            'attn.proj': rf'{_SWIN3D_BLOCK}\.attn\.proj\.(weight|bias)',
            'attn.rpb': rf'{_SWIN3D_BLOCK}\.attn\.relative_position_bias_table',
            'mlp.fc1': rf'{_SWIN3D_BLOCK}\.mlp\.fc1\.(weight|bias)',
            'mlp.fc2': rf'{_SWIN3D_BLOCK}\.mlp\.fc2\.(weight|bias)',
            'downsample': r'layers\.\d+\.downsample\..*',
            'patch_embed': r'patch_embed\..*',
        },
        attention=rf'{_SWIN3D_BLOCK}\.attn',
        residual=(_SWIN3D_BLOCK, 'forward_part2', 'mlp'),
    ),
}


def layout_of(backbone: nn.Module) -> Layout:
    """The place table's entry for ``backbone``, by its class or a class it inherits from.

    Raises:
        UserError: when the table has none.
    """
    for cls in type(backbone).__mro__:
        if cls.__name__ in LAYOUTS:
            return LAYOUTS[cls.__name__]
    raise UserError(f'{type(backbone).__name__} is not in the place table; it has: {", ".join(LAYOUTS)}.')
