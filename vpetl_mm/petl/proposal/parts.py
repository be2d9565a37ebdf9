"""Finds the parts of a transformer by names, classes and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from ..inner import Inner
from .attention import inner_of

NORM12 = (
    ('norm1', 'norm2'),
    ('ln1', 'ln2'),
    ('ln_1', 'ln_2'),
    ('layer_norm1', 'layer_norm2'),
    ('layernorm_before', 'layernorm_after'),
    ('attention_norm', 'ffn_norm'),
    ('attention_norm', 'mlp_norm'),
    ('norm_attn', 'norm_mlp'),
    ('attn_norm', 'mlp_norm'),
    ('pre_attn_norm', 'pre_mlp_norm'),
)
BEHIND = ('drop_path2', 'layer_scale2', 'ls2')  # called behind the MLP alone: what is added there is not scaled
LINEARS = (('linear1', 'linear2'), ('fc1', 'fc2'), ('lin1', 'lin2'))  # an MLP whose layers are the block's own
EMBEDDING = (nn.Conv2d, nn.Conv3d)
CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # which nobody calls


def pattern(path: str) -> str:
    """Return a regular expression of a path in which every number may be any."""
    return re.sub(r'\d+', r'\\d+', re.escape(path))


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model.

    Args:
        pattern: of their paths in the model.
        paths: of all of them, in order.
        attention: the path of the attention below the first.
        inner: what it looks like inside.
        others: patterns of further attentions, which are not theirs, or not the first in theirs.
    """

    pattern: str
    paths: list[str]
    attention: str
    inner: Inner
    others: list[str]


def blocks_of(model: nn.Module) -> Blocks | None:
    """Return the blocks that hold the most attention weights, or None where there are none."""
    found: dict[str, dict[str, list[str]]] = {}
    inners = {path: inner for path, module in model.named_modules() if (inner := inner_of(module)) is not None}
    for path in inners:
        if block := _block_of(path):
            found.setdefault(pattern(block), {}).setdefault(block, []).append(path.removeprefix(f'{block}.'))
    if not found:
        return None
    modules = dict(model.named_modules())

    def weight(blocks: Mapping[str, list[str]]) -> int:
        return sum(p.numel() for block in blocks for p in modules[block].parameters())

    best = max(found, key=lambda key: weight(found[key]))
    first, below = next(iter(found[best].items()))
    own = next((a for a in below if not re.search('temporal|cross', a)), below[0])
    others = [rf'{best}\.{pattern(a)}' for a in below if a != own] + [p for p in found if p != best]
    return Blocks(best, [*found[best]], own, inners[f'{first}.{own}'], others)


def _block_of(attention: str) -> str:
    """Return the path of what is repeated around an attention: the longest that ends in a number; '' for none."""
    parts = attention.split('.')[:-1]
    while parts and not re.search(r'\d$', parts[-1]):
        parts.pop()
    return '.'.join(parts)


def backbone_of(model: nn.Module, blocks: Iterable[str]) -> str:
    """Return the path of the smallest module that holds all blocks and the first convolution, '' for the model."""
    modules, blocks = dict(model.named_modules()), list(blocks)
    parts = blocks[0].split('.')
    holders = ['.'.join(parts[:i]) for i in range(len(parts) - 1, -1, -1)]
    holders = [h for h in holders if all(b.startswith(f'{h}.' if h else '') for b in blocks)]
    holders = [h for h in holders if not isinstance(modules[h], (*CONTAINERS, nn.Sequential))]
    for holder in holders:
        if any(isinstance(m, EMBEDDING) for m in modules[holder].modules()):
            return holder
    return holders[0] if holders else ''


def proj_of(block: nn.Module, attention: str, inner: Inner) -> str:
    """Return the path of an attention's output projection below its block, '' for none."""
    holder = attention.partition('.')[0]
    own = {f'{attention}.{w.removesuffix(".weight")}' for w in inner.weights}
    width = _width(block.get_submodule(attention), inner)
    found = [
        f'{holder}.{name}'
        for name, m in block.get_submodule(holder).named_modules()
        if isinstance(m, nn.Linear) and m.out_features == width and f'{holder}.{name}' not in own
    ]
    return found[-1] if found else ''


def _width(attention: nn.Module, inner: Inner) -> int:
    return attention.get_parameter(inner.weights[0]).shape[1]


def mlp_of(block: nn.Module, attention: str, inner: Inner) -> tuple[str | tuple[str, str], tuple[str, str]] | None:
    """Return an MLP's path below a block, or those of its two parts, and its two layers; None for none."""
    width, children = _width(block.get_submodule(attention), inner), dict(block.named_children())
    children.pop(attention.partition('.')[0])
    linears = {
        c: {n: m for n, m in child.named_modules() if isinstance(m, nn.Linear)} for c, child in children.items()
    }
    for child, own in linears.items():
        firsts = [n for n, m in own.items() if m.in_features == width]
        lasts = [n for n, m in own.items() if m.out_features == width]
        if len(own) > 1 and firsts and lasts and firsts[0] != lasts[-1]:
            behind = next((b for b in BEHIND if b in children), None)
            gated = [f for f in firsts if f != lasts[-1] and own[f].out_features == own[firsts[0]].out_features]
            return (child, behind) if behind else child, (_either(child, gated), _either(child, lasts[-1:]))
    parts = [c for c, own in linears.items() if len(own) == 1]
    for first, last in pairwise(parts):
        (a, up), (b, down) = *linears[first].items(), *linears[last].items()
        known = (first, last) in LINEARS or (a and b)
        if known and up.in_features == down.out_features == width and up.out_features == down.in_features:
            return (first, last), (_either(first, [a]), _either(last, [b]))
    return None


def _either(child: str, names: list[str]) -> str:
    """Return the pattern of one layer of a module, or of several beside each other; '' names the module itself."""
    if len(names) == 1:
        return re.escape(f'{child}.{names[0]}' if names[0] else child)
    return rf'{re.escape(child)}\.({"|".join(map(re.escape, names))})'


def norm12_of(block: nn.Module) -> tuple[str, str] | None:
    """Return the names of a block's two norms, by known names, else its first two; None for fewer."""
    norms = [n for n, m in block.named_children() if is_norm(m)]
    known = next((pair for pair in NORM12 if {*pair} <= {*norms}), None)
    return known or (tuple(norms[:2]) if len(norms) > 1 else None)


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a norm with weights."""
    return 'norm' in type(module).__name__.lower() and getattr(module, 'weight', None) is not None


def norms_of(backbone: nn.Module, block: str, blocks: Iterable[str]) -> str:
    """Return a pattern of all norms of a backbone."""
    inside, outside, blocks = {}, {}, tuple(f'{b}.' for b in blocks)
    for name in (n for n, m in backbone.named_modules() if is_norm(m)):
        if own := next((b for b in blocks if name.startswith(b)), None):
            inside[pattern(name.removeprefix(own))] = None
        else:
            outside[pattern(name)] = None
    return '|'.join([*([rf'{block}\.({"|".join(inside)})'] if inside else []), *outside])


def embedding_of(backbone: nn.Module, blocks: Iterable[str]) -> str:
    """Return a pattern of the parameters of the patch embedding, '' where there is none."""
    blocks = tuple(f'{b}.' for b in blocks)
    for name, module in backbone.named_modules():
        if isinstance(module, EMBEDDING) and not name.startswith(blocks):
            holder = name.rpartition('.')[0]
            own = backbone.get_submodule(holder)
            others = next(own.parameters(recurse=False), None) is not None or any(
                isinstance(m, nn.Embedding) for m in own.modules()
            )
            return rf'{re.escape(name if others or not holder else holder)}\..*'
    return ''


def scales_of(block: nn.Module) -> str:
    """Return a pattern, below the block, of LayerScale's parameters, '' where there are none."""
    names = [n for n, _ in block.named_parameters() if re.search(r'(gamma|lambda|layer_scale|(^|\.)ls)_?\d', n)]
    return '|'.join(map(re.escape, names))
