"""Proposes an entry of the place table for a model that it does not know."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..grid import patches_of
from ..inner import Inner
from ..layouts import Layout, key_of, transformer
from ..self_attention import SelfAttention
from . import parts
from .attention import is_windowed


@dataclass(frozen=True)
class Proposal:
    """An entry of the place table.

    Args:
        key: of the backbone's class.
        block: the first argument of ``transformer``.
        options: its others.
        notes: what is left out, or has to be looked at, a sentence each.
    """

    key: str
    block: str
    options: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def layout(self) -> Layout:
        """The layout itself."""
        return transformer(self.block, **self.options)

    @property
    def code(self) -> str:
        """Python that registers the layout, to paste."""
        names = ['register_layout', 'transformer']
        names += ['Inner'] * ('inner' in self.options) + ['SelfAttention'] * ('leaf' in self.options)
        lines = [f'        {_text(self.block)},']
        lines += [f'        {name}={_text(value)},' for name, value in self.options.items()]
        body = '\n'.join(lines)
        imports = f'from vpetl_mm.petl import {", ".join(sorted(names, key=str.lower))}'
        return f"{imports}\n\nregister_layout(\n    '{self.key}',\n    transformer(\n{body}\n    ),\n)\n"


def propose(model: nn.Module, run: Callable[[nn.Module], Any] | None = None) -> Proposal | list[str]:
    """Return a proposed entry for a model, or a list of what is missing for one.

    Args:
        model: a transformer on any device, with or without values.
        run: calls it, to see whether its norms stand in front of attention and MLP, or behind them. Defaults to None,
            in front is taken for granted.
    """
    blocks = parts.blocks_of(model)
    if blocks is None:
        return [
            'no repeated block holds an attention with one layer for q, k and v (qkv), with three (q_proj, k_proj, '
            'v_proj, or query, key, value), or torch.nn.MultiheadAttention'
        ]
    path = parts.backbone_of(model, blocks.paths)
    backbone, at = model.get_submodule(path), f'{path}.' if path else ''
    block = model.get_submodule(blocks.paths[0])
    missing = _missing(backbone, block, blocks)
    if missing:
        return missing
    (mlp, fc), norm12 = parts.mlp_of(block, blocks.attention, blocks.inner), parts.norm12_of(block)
    attention = block.get_submodule(blocks.attention)
    own, names = blocks.pattern.removeprefix(re.escape(at)), [b.removeprefix(at) for b in blocks.paths]
    windows = is_windowed(attention) or is_windowed(block)
    options: dict[str, Any] = dict(norms=parts.norms_of(backbone, own, names), attn=blocks.attention)
    options |= dict(inner=(blocks.inner,))
    if isinstance(attention, nn.MultiheadAttention):
        options |= dict(leaf=SelfAttention)
    proj = parts.proj_of(block, blocks.attention, blocks.inner)
    options |= dict(proj=proj) if proj and proj != f'{blocks.attention}.proj' else {}
    options |= dict(mlp=mlp, fc=fc, norm12=norm12)
    options |= dict(windows=True) if windows else {}
    options |= dict(passed_by=('qkv',)) if blocks.inner.biases and 'leaf' not in options else {}
    if groups := _groups(backbone, block, own, names):
        options |= dict(groups=groups)
    if run is not None and _is_post_norm(block, blocks.attention, norm12, run, model):
        options |= dict(post_norm=(type(block).__name__,))
    if run is not None and _leads(backbone, block, run, model):
        options |= dict(leading=('num_prefix_tokens',))
    options |= {} if windows else dict(takes_tokens=False)
    return Proposal(key_of(type(backbone)), own, options, tuple(_notes(blocks, proj, options)))


def _is_post_norm(
    block: nn.Module, attention: str, norm12: tuple[str, str], run: Callable[[nn.Module], Any], model: nn.Module
) -> bool:
    """Tell whether a block calls its first norm behind its attention."""
    called: list[str] = []
    parts = {'norm': getattr(block, norm12[0]), 'attention': block.get_submodule(attention)}
    hooks = [m.register_forward_pre_hook(lambda *_, name=n: called.append(name)) for n, m in parts.items()]
    try:
        run(model)
    except Exception:  # whatever a model raises that does not run so
        return False
    finally:
        for hook in hooks:
            hook.remove()
    return called[:2] == ['attention', 'norm']


def _leads(backbone: nn.Module, block: nn.Module, run: Callable[[nn.Module], Any], model: nn.Module) -> bool:
    """Tell whether as many tokens as ``num_prefix_tokens`` says stand in front of the patches in a block.

    In some models, such as CaiT, the class token enters behind the blocks.
    """
    size, told, seen = patches_of(backbone), getattr(backbone, 'num_prefix_tokens', None), []
    if size is None or told is None:
        return False
    hook = block.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]) if args else None)
    try:
        run(model)
    except Exception:  # whatever a model raises that does not run so
        return False
    finally:
        hook.remove()
    return seen[:1] == [size[0] * size[1] + told]


def _missing(backbone: nn.Module, block: nn.Module, blocks: parts.Blocks) -> list[str]:
    """Return what an entry would need and the model does not have."""
    name, missing = type(block).__name__, []
    if parts.mlp_of(block, blocks.attention, blocks.inner) is None:
        missing.append(f'{name} has no MLP: a module, or two, from the width of the attention and back to it')
    if parts.norm12_of(block) is None:
        missing.append(f'{name} has not two norms of its own, in front of the attention and of the MLP')
    if isinstance(block, (nn.ModuleList, nn.Sequential, nn.ModuleDict)):
        missing.append(f'a block has to be a module with a forward of its own, and here it is a {name}')
    if isinstance(block, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
        missing.append(
            f'in eval mode {name} passes its layers by, with one function of torch for all of them; write the block '
            'with nn.MultiheadAttention and an MLP'
        )
    if type(backbone).__module__.partition('.')[0] == 'torch':
        missing.append(f'the backbone is a {type(backbone).__name__}: give the model a class of its own')
    return missing


def _groups(backbone: nn.Module, block: nn.Module, own: str, names: list[str]) -> dict[str, str]:
    groups = {}
    if (embedding := parts.embedding_of(backbone, names)) and embedding != r'patch_embed\..*':
        groups['patch_embed'] = embedding
    if scales := parts.scales_of(block):
        groups['layer_scale'] = rf'{own}\.({scales})'
    return groups


def _notes(blocks: parts.Blocks, proj: str, options: dict[str, Any]) -> list[str]:
    notes = [f'attentions at {other} are left out.' for other in blocks.others]
    if not blocks.inner.joins:
        notes.append('the attention seems to multiply its keys itself: no further ones can join (joins=False).')
    if not proj:
        notes.append('no output projection of the attention was found.')
    if not isinstance(options['mlp'], tuple):
        notes.append('deltas on the MLP add inside LayerScale and drop-path, where there are any.')
    notes.append('adds_residual names the block if it returns the stream in front of the second norm plus the MLP.')
    if 'takes_tokens' in options:
        notes.append('takes_tokens=True lets prompts pass through all blocks, if these know no positions.')
    return notes


def _text(value: Any) -> str:
    """Return a value as it is written in code."""
    if isinstance(value, Inner):
        default = Inner()
        said = {n: v for n, v in vars(value).items() if v != getattr(default, n) or n == 'weights'}
        return f'Inner({_text(said.pop("weights"))}{"".join(f", {n}={_text(v)}" for n, v in said.items())})'
    if isinstance(value, tuple):
        return f'({", ".join(map(_text, value))}{"," * (len(value) == 1)})'
    if isinstance(value, dict):
        return '{' + ', '.join(f'{_text(k)}: {_text(v)}' for k, v in value.items()) + '}'
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, str) and '\\' in value:
        return f"r'{value}'"
    return repr(value)
