"""Recognises an attention by what it owns: one layer for q, k and v, three, or torch's own parameter."""

from __future__ import annotations

import inspect

from torch import nn

from ..inner import Inner

FUSED = ('qkv', 'qkv_proj', 'to_qkv', 'Wqkv', 'w_qkv', 'in_proj', 'query_key_value', 'c_attn')
APART = (
    ('q', 'k', 'v'),
    ('q_proj', 'k_proj', 'v_proj'),
    ('query', 'key', 'value'),
    ('to_q', 'to_k', 'to_v'),
    ('q_lin', 'k_lin', 'v_lin'),
    ('q_linear', 'k_linear', 'v_linear'),
    ('query_proj', 'key_proj', 'value_proj'),
    ('linear_q', 'linear_k', 'linear_v'),
    ('wq', 'wk', 'wv'),
    ('Wq', 'Wk', 'Wv'),
    ('w_q', 'w_k', 'w_v'),
)
BIASES = ('q_bias', 'v_bias')
KEY_NORMS = ('k_norm', 'norm_k', 'key_norm', 'k_layernorm', 'k_ln')
MASKS = ('mask', 'attn_mask', 'attention_mask')
# what the source of a forward pass says where keys can join; transformers' interface calls torch's attention
JOINS = ('scaled_dot_product_attention', 'ALL_ATTENTION_FUNCTIONS', 'attention_interface')


def inner_of(module: nn.Module) -> Inner | None:
    """Return the inside of an attention; None for any other module."""
    if isinstance(module, nn.MultiheadAttention):
        return None if module.in_proj_weight is None else Inner(('in_proj_weight',), ('in_proj_bias',))
    layers = {n: m for n, m in module.named_children() if isinstance(m, nn.Linear)}
    fused = next((n for n in FUSED if n in layers and layers[n].out_features % 3 == 0), None)
    names = (fused,) if fused else next((three for three in APART if {*three} <= {*layers}), ())
    if not names:
        return None
    own = all(isinstance(getattr(module, b, None), nn.Parameter) for b in BIASES)
    windows = is_windowed(module)
    return Inner(
        weights=tuple(f'{n}.weight' for n in names),
        biases=(BIASES[0], '', BIASES[1]) if own else (),
        key_norm=next((n for n in KEY_NORMS if n in dict(module.named_children())), ''),
        mask=next((m for m in MASKS if windows and m in inspect.signature(module.forward).parameters), ''),
        joins=_joins(module),
    )


def is_windowed(module: nn.Module) -> bool:
    """Tell whether a module's class is named after windows, so that its tokens are those of one window."""
    return any(word in type(module).__name__ for word in ('Window', 'Swin'))


def _joins(attention: nn.Module) -> bool:
    """Tell whether an attention seems to call torch's, or cannot be read; its first forward pass checks it."""
    try:
        source = inspect.getsource(type(attention).forward)
    except (OSError, TypeError):
        return True
    return any(word in source for word in JOINS)
