"""The place table: one entry per backbone class says where its parts are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from ..errors import UserError
from .delta import Delta, Site


@dataclass(frozen=True)
class Layout:
    """Places of one backbone class. Patterns are regular expressions that match whole names.

    Args:
        places: place name -> pattern of module paths, for deltas.
        groups: train name -> pattern of parameter paths, for ``train``.
        block: pattern of the blocks.
        norm: the norm in front of the attention, as an attribute of the block.
        block_norms: pattern of the norms inside the blocks.
        branch: the block's method that computes the MLP branch, for deltas that read the residual stream;
            None if the MLP adds the residual itself.
        passed_by: places whose ``forward`` the host's own attention does not call.
        fused: the places whose output is q, k and v side by side.
        slot_biases: the attention's biases of q, k and v ('' for none), where they are not their projection's.
    """

    places: Mapping[str, str]
    groups: Mapping[str, str]
    block: str
    norm: str
    block_norms: str
    branch: str | None = None
    passed_by: tuple[str, ...] = ()
    fused: tuple[str, ...] = ('qkv',)
    slot_biases: tuple[str, ...] = ()

    def sites(self, backbone: nn.Module, place: str) -> Iterator[Site]:
        """Yield the hosts at ``place``, in the backbone's order; none where the table has no such place."""
        pattern = self.places.get(place)
        for name, module in list(backbone.named_modules()):
            if pattern and re.fullmatch(pattern, name):
                first, last = _ends(module)
                block = backbone.get_submodule(re.match(self.block, name).group())
                slots = 'qkv' if place in self.fused else ''
                norm = getattr(block, self.norm)
                yield Site(name, module, place, first.in_features, last.out_features, slots, norm)

    def biases(self, backbone: nn.Module, host: str) -> list[tuple[str, int]]:
        """Return the parameters that make up the bias of a layer's output, each with the position where it starts.

        Args:
            backbone: holds the layer.
            host: the layer's path.
        """
        layer = backbone.get_submodule(host)
        if layer.bias is not None:
            return [(f'{host}.bias', 0)]
        owner = host.rpartition('.')[0]
        if not re.fullmatch(self.places['qkv'], host):
            return []
        attention, width = backbone.get_submodule(owner), layer.weight.shape[0] // 3
        named = ((n, i * width) for i, n in enumerate(self.slot_biases) if n)
        return [(f'{owner}.{n}', start) for n, start in named if getattr(attention, n, None) is not None]

    def norms(self, backbone: nn.Module) -> Iterator[nn.Module]:
        """Yield the norms inside the blocks, in order."""
        yield from (m for n, m in backbone.named_modules() if re.fullmatch(self.block_norms, n))

    def blocks(self, backbone: nn.Module) -> Iterator[nn.Module]:
        """Yield the backbone's blocks, in order."""
        yield from (m for n, m in backbone.named_modules() if re.fullmatch(self.block, n))


def _ends(module: nn.Module) -> tuple[nn.Linear, nn.Linear]:
    """Return the first and the last linear layer of a host, not counting deltas."""
    deltas = {id(m) for d in module.modules() if isinstance(d, Delta) for m in d.modules()}
    linears = [m for m in module.modules() if isinstance(m, nn.Linear) and id(m) not in deltas]
    return linears[0], linears[-1]


def _transformer(
    block: str,
    *,
    norms: str,
    attn: str = 'attn',
    mlp: str = 'mlp',
    fc: tuple[str, str] = ('fc1', 'fc2'),
    norm12: tuple[str, str] = ('norm1', 'norm2'),
    windows: bool = False,
    groups: Mapping[str, str] | None = None,
    **others,
) -> Layout:
    """Return the entry of a transformer from the names that differ between hosts.

    Args:
        block: pattern of the blocks.
        norms: pattern of all norms' paths.
        attn: path of the attention below a block.
        mlp: path of the MLP below a block.
        fc: paths of its two linear layers below it.
        norm12: the norms in front of attention and MLP.
        windows: the attention is in windows, with relative-position-bias tables; whole blocks then take no
            further tokens.
        groups: further train groups, name -> pattern.
        others: further fields of :class:`Layout`.
    """
    attn, mlp = rf'{block}\.{re.escape(attn)}', rf'{block}\.{re.escape(mlp)}'
    fc1, fc2 = (rf'{mlp}\.{re.escape(name)}' for name in fc)
    places = {'qkv': rf'{attn}\.qkv', 'proj': rf'{attn}\.proj', 'mlp': mlp, 'fc1': fc1, 'fc2': fc2, 'attn': attn}
    own = {'attn.rpb': rf'{attn}\.relative_position_bias_table'} if windows else {}
    both = r'\.(weight|bias)'
    return Layout(
        places=places if windows else {**places, 'block': block},
        groups={
            'bias': r'.*\.(bias|q_bias|v_bias)',
            'norm': norms + both,
            'norm1': rf'{block}\.{norm12[0]}{both}',
            'norm2': rf'{block}\.{norm12[1]}{both}',
            'attn.qkv': rf'{attn}\.(qkv\.weight|qkv\.bias|q_bias|v_bias)',
            'attn.proj': rf'{attn}\.proj{both}',
            **own,
            'mlp.fc1': fc1 + both,
            'mlp.fc2': fc2 + both,
            'patch_embed': r'patch_embed\..*',
            **(groups or {}),
        },
        block=block,
        norm=norm12[0],
        block_norms=rf'{block}\.({"|".join(norm12)})',
        **others,
    )


# Keys are <library>.<class>: two libraries have a VisionTransformer.
LAYOUTS: dict[str, Layout] = {
    # Video Swin
    'mmaction.SwinTransformer3D': _transformer(
        r'layers\.\d+\.blocks\.\d+',
        norms=r'(.*\.)?norm\d*',
        windows=True,
        groups={'downsample': r'layers\.\d+\.downsample\..*'},
        branch='forward_part2',
    ),
    # VideoMAE's ViT, whose own attention calls F.linear with qkv.weight
    'mmaction.VisionTransformer': _transformer(
        r'blocks\.\d+',
        norms=r'(blocks\.\d+\.norm[12]|norm|fc_norm)',
        fc=('layers.0.0', 'layers.1'),
        groups={'fc_norm': r'fc_norm\.(weight|bias)'},
        branch='mlp_branch',
        passed_by=('qkv',),
        slot_biases=('q_bias', '', 'v_bias'),
    ),
    # the image ViT
    'mmpretrain.VisionTransformer': _transformer(
        r'layers\.\d+',
        norms=r'(.*\.)?(ln\d|pre_norm)',
        mlp='ffn',
        fc=('layers.0.0', 'layers.1'),
        norm12=('ln1', 'ln2'),
    ),
    # the 2D Swin: the example in docs/adding_a_host.md
    'mmpretrain.SwinTransformer': _transformer(
        r'stages\.\d+\.blocks\.\d+',
        norms=r'(.*\.)?norm\d*',
        attn='attn.w_msa',
        mlp='ffn',
        fc=('layers.0.0', 'layers.1'),
        windows=True,
        groups={'downsample': r'stages\.\d+\.downsample\..*'},
    ),
}


def host_of(backbone: nn.Module) -> str:
    """Return the place table's key of a backbone, such as ``'mmaction.SwinTransformer3D'``, by its base classes too.

    Raises:
        UserError: when the table has none.
    """
    for cls in type(backbone).__mro__:
        name = f'{cls.__module__.partition(".")[0]}.{cls.__name__}'
        if name in LAYOUTS:
            return name
    raise UserError(f'{type(backbone).__name__} is not in the place table; it has: {", ".join(LAYOUTS)}.')


def layout_of(backbone: nn.Module) -> Layout:
    """Return the place table's entry for ``backbone``; raise :class:`UserError` when it has none."""
    return LAYOUTS[host_of(backbone)]
