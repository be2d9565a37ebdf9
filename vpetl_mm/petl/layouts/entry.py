"""An entry of the place table, from the names that differ between hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from posixpath import commonpath

from ..inner import Inner
from .layout import Layout

BOTH = r'\.(weight|bias)'


def transformer(
    block: str,
    *,
    norms: str,
    attn: str = 'attn',
    qkv: str = 'qkv',
    proj: str = '',
    mlp: str | tuple[str, str] = 'mlp',
    fc: tuple[str, str] = ('mlp.fc1', 'mlp.fc2'),
    norm12: tuple[str, str] = ('norm1', 'norm2'),
    inner: tuple[Inner, ...] = (),
    windows: bool = False,
    patch: str = r'patch_embed\.(proj|projection)',
    table: str = 'relative_position_bias_table',
    groups: Mapping[str, str] | None = None,
    **others,
) -> Layout:
    r"""Return the layout of a transformer from the names that differ between hosts.

    Args:
        block: pattern of the blocks.
        norms: pattern of all norms' paths.
        attn: path of the attention below a block.
        qkv: name of the fused projection below it, where ``inner`` does not say what there is.
        proj: path of the output projection below a block. Defaults to '', ``proj`` of the attention.
        mlp: path of the MLP below a block, or those of its first and last part.
        fc: paths of its two linear layers below a block, as patterns: ``(r'mlp\.(gate|up)_proj', ...)`` where it is
            gated.
        norm12: the norms in front of attention and MLP.
        inner: the forms of the attention's inside; see :class:`Layout`.
        windows: the attention is in windows; whole blocks then take no further tokens.
        patch: pattern of the layer that embeds patches.
        table: the relative-position-bias table below the attention, in windows.
        groups: further train groups, name -> pattern.
        others: further fields of :class:`Layout`.
    """
    whole = commonpath([attn.replace('.', '/'), (proj or f'{attn}.proj').replace('.', '/')]).replace('/', '.')
    attn = rf'{block}\.{re.escape(attn)}'
    first = rf'{block}\.{re.escape(mlp if isinstance(mlp, str) else mlp[0])}'
    proj = rf'{block}\.{re.escape(proj)}' if proj else rf'{attn}\.proj'
    fc1, fc2 = (rf'{block}\.{name}' for name in fc)
    places = {'qkv': attn if inner else rf'{attn}\.{qkv}', 'proj': proj, 'mlp': first, 'fc1': fc1, 'fc2': fc2}
    places |= {'attn': attn, 'block': block, **({'between': block} if others.get('adds_residual') else {})}
    ends = rf'(?!{block}\.|.*(?:pre|embed|downsample))(?:{norms}){BOTH}'
    last_norm = (groups or {}).get('last_norm', ends).removesuffix(BOTH)
    places |= {'patch_embed': patch, 'last_norm': last_norm}
    places |= {f'norm{i + 1}': rf'{block}\.{name}' for i, name in enumerate(norm12)}
    weights = [re.escape(w) for form in inner for w in form.weights] or [rf'{qkv}\.weight']
    biases = [re.escape(b) for form in inner for b in form.biases if b] or ['q_bias', 'v_bias']
    layers = [w.removesuffix('weight') + 'bias' for w in weights]
    return Layout(
        places=places,
        groups={
            'bias': r'(?!(?:.*\.)?deltas\.)(.*[._])?bias',
            'norm': rf'({norms}){BOTH}',
            'norm1': rf'{block}\.{norm12[0]}{BOTH}',
            'norm2': rf'{block}\.{norm12[1]}{BOTH}',
            'last_norm': ends,
            'attn.qkv': rf'{attn}\.({"|".join([*weights, *layers, *biases])})',
            'attn.proj': proj + BOTH,
            **({'attn.rpb': rf'{attn}\.{table}'} if windows else {}),
            'mlp.fc1': fc1 + BOTH,
            'mlp.fc2': fc2 + BOTH,
            'patch_embed': r'patch_embed\..*',
            **(groups or {}),
        },
        block=block,
        norm12=norm12,
        block_norms=rf'{block}\.({"|".join(norm12)})',
        mlp=mlp,
        inner=inner,
        attention=whole,
        windows=windows,
        **{'takes_tokens': not windows, **others},
    )
