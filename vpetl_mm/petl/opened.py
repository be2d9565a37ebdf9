"""Attentions of other libraries, opened: what deltas do inside, without a copy of the attention's code.

While the attention's own forward runs, two functions that it calls are watched:

- ``linear`` with a weight of its projection: the deltas on qkv change the result, also where q, k and v are three
  layers, or where the attention multiplies by ``weight`` itself, past the layer;
- ``scaled_dot_product_attention``: keys and values of deltas join those of the tokens.

An attention that does not call them is refused at its first forward pass: nothing is left out in silence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UserError
from .delta import Delta
from .deltas import deltas_of
from .exchange import Exchanged, exchanged
from .extra_tokens import ExtraTokens
from .host import taken
from .inner import Inner, Projection, inside
from .output import add_delta, before, behind, change_first


@cache
def opened_class(plain: type[nn.Module], inner: Inner) -> type[nn.Module]:
    """Return the subclass of an attention that asks the deltas on it and on its qkv."""
    names = [*inspect.signature(plain.forward).parameters][1:]
    members = dict(forward=_forward, adder=staticmethod(add_delta), inner=inner, names=names)
    return exchanged(f'Opened{plain.__name__}', (opened_class, plain, inner), **members)


def is_opened(attention: nn.Module) -> bool:
    """Tell whether an attention asks the deltas on its qkv."""
    return hasattr(attention, 'inner')


def _forward(self: nn.Module, plain: type[nn.Module], *args: Any, **kwargs: Any) -> Any:
    x, args, kwargs = taken(args, kwargs, self.names[0])
    x = before(self, x, 'attn')
    asked, joining = _asked(self), [d for d in deltas_of(_layer(self)) + deltas_of(self) if d.joins_attention]
    if not asked and not joining:
        y = plain.forward(self, x, *args, **kwargs)
    else:
        arguments = {**dict(zip(self.names[1:], args, strict=False)), **kwargs}
        tokens = x if getattr(self, 'batch_first', True) else x.transpose(0, 1)  # as nn.MultiheadAttention may want
        call = _Call(self, asked, joining, tokens, arguments.get(self.inner.mask))
        with _Watch(call):
            y = plain.forward(self, x, *args, **kwargs)
        call.check()
    return change_first(y, lambda first: behind(self, x, first, 'attn'))


def _layer(attention: nn.Module) -> nn.Module | None:
    """Return the one layer that projects to q, k and v; None where they are three, or no layer."""
    owner, _, _ = attention.inner.weights[0].rpartition('.')
    return inside(attention, owner) if owner and len(attention.inner.weights) == 1 else None


def _on_qkv(attention: nn.Module) -> list[Delta]:
    return [d for d in deltas_of(attention) if d.at == 'qkv'] + deltas_of(_layer(attention))


def _asked(attention: nn.Module) -> bool:
    """Tell whether deltas on qkv change the projection here: a layer that is called asks its own."""
    layer = _layer(attention)
    return bool(_on_qkv(attention)) and not isinstance(layer, Exchanged)


class _Watch(TorchFunctionMode):
    """Gives the two functions to a :class:`_Call`, while it is active."""

    def __init__(self, call: _Call) -> None:
        super().__init__()
        self.call = call

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and self.call.weights:
            given = {**dict(zip(('input', 'weight', 'bias'), args, strict=False)), **kwargs}
            for i, own in enumerate(self.call.weights):
                if given['weight'] is own:
                    return self.call.part(i, given['input'], given.get('bias'))
        if func is F.scaled_dot_product_attention and self.call.extras:
            return self.call.attend(*args, **kwargs)
        return func(*args, **kwargs)


class _Call:
    """One call of one attention.

    Args:
        attention: opened.
        projects: whether the deltas on qkv change the projection here.
        joining: the deltas that bring keys and values.
        x: its input, (B, N, d).
        mask: the windows' shift mask, (nW, N, N), or None.
    """

    def __init__(
        self, attention: nn.Module, projects: bool, joining: Sequence[Delta], x: Tensor, mask: Tensor | None
    ) -> None:
        self.attention, self.x, self.mask = attention, x, mask
        self.projection = Projection(attention, attention.inner)
        self.weights = self.projection.weights if projects else []
        self.parts: dict[int, Tensor] = {}
        self.extras = [d.extra_tokens(x, self.project_keys) for d in joining]
        self.projected, self.attended = not projects, not joining

    def part(self, i: int, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return one part of the projection of ``x``; the first call computes them all.

        Args:
            i: which of the weights.
            x: (B, N, d).
            bias: what the attention adds; where there is one weight it may add its biases later.
        """
        if len(self.weights) == 1:
            self.projected = True
            later = self.projection.bias if bias is None else None
            return self._changed(x, F.linear(x, self.weights[0], bias), later)
        if not self.parts:
            self.parts = dict(enumerate(self.project(x).split([len(w) for w in self.weights], dim=-1)))
            self.x, self.projected = x, True
        if x is not self.x:
            raise UserError(f'{self._name} has keys of other tokens than its queries; only self-attention fits.')
        return self.parts.pop(i)

    def project(self, x: Tensor) -> Tensor:
        """Return the whole projection with its biases and deltas, (..., d) to (..., 3 d)."""
        own, layer = self.projection, _layer(self.attention)
        if isinstance(layer, Exchanged):  # it asks its deltas itself
            y = layer(x)
            return y if not self.attention.inner.biases or own.bias is None else y + own.bias
        biases = own.biases if len(own.weights) > 1 else [own.bias]
        y = torch.cat([F.linear(x, w, b) for w, b in zip(own.weights, biases, strict=True)], dim=-1)
        return self._changed(x, y)

    def _changed(self, x: Tensor, y: Tensor, later: Tensor | None = None) -> Tensor:
        """Return the whole projection as the deltas on qkv change it; see :func:`~.host.behind`."""
        host = _layer(self.attention)
        if host is not None:
            return behind(host, x, y, layer=self.projection, later=later)
        return behind(self.attention, x, y, 'qkv', self.projection, later)

    def project_keys(self, x: Tensor) -> Tensor:
        """Return :meth:`project` with the norm of the keys, which tokens outside the attention have to pass too."""
        y = self.project(x)
        norm = inside(self.attention, self.attention.inner.key_norm) if self.attention.inner.key_norm else None
        if norm is None or isinstance(norm, nn.Identity):
            return y
        q, k, v = y.chunk(3, dim=-1)
        width = (getattr(norm, 'normalized_shape', None) or norm.weight.shape)[-1]
        heads = k.unflatten(-1, (-1, width))
        return torch.cat([q, norm(heads).flatten(-2).to(v.dtype), v], dim=-1)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **others: Any,
    ) -> Tensor:
        """Attend with the further keys in front; q, k and v are (B, heads, N, d / heads), or have windows too."""
        if is_causal:
            raise UserError(f'{self._name} is causal: no keys can join those of its tokens.')
        if self.attended:
            raise UserError(f'{self._name} calls scaled_dot_product_attention twice: no keys can join its own.')
        self.attended = True
        k = torch.cat([*(_by_heads(e.k, k) for e in self.extras), k], dim=-2)
        v = torch.cat([*(_by_heads(e.v, v) for e in self.extras), v], dim=-2)
        if attn_mask is not None:
            attn_mask = torch.cat([*(self._columns(attn_mask, e) for e in self.extras), attn_mask], dim=-1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, **others)

    def _columns(self, mask: Tensor, extra: ExtraTokens) -> Tensor:
        """Return the mask of added keys: nothing hides them, or what hides the tokens that they belong to."""
        if extra.masked and not self.attention.inner.mask:  # the mask holds no position bias
            return mask
        seen = torch.ones if mask.dtype == torch.bool else torch.zeros
        columns = seen(*mask.shape[:-1], extra.k.shape[-2], dtype=mask.dtype, device=mask.device)
        if extra.masked and self.mask is not None:
            windows = self.mask.unsqueeze(1).to(mask.dtype)
            columns = columns + windows.repeat(len(mask) // len(windows), 1, 1, 1)
        return columns

    @property
    def _name(self) -> str:
        return type(self.attention).plain.__name__

    def check(self) -> None:
        """Raise :class:`UserError` where the attention has called neither."""
        if not self.projected or self.parts:
            weights = ', '.join(self.attention.inner.weights)
            raise UserError(f'{self._name} did not multiply by {weights}: deltas on qkv would be left out.')
        if not self.attended:
            raise UserError(
                f'{self._name} did not call scaled_dot_product_attention, so no keys could join its own; load models '
                "of transformers with attn_implementation='sdpa'."
            )


def _by_heads(tokens: Tensor, like: Tensor) -> Tensor:
    """Return added keys, (n, d) or (B, n, d), in the shape of ``like``, (B, heads, N, d / heads) or with windows."""
    heads = tokens.unflatten(-1, (like.shape[1], -1)).transpose(-2, -3).to(like.dtype)
    if heads.shape[-1] != like.shape[-1]:
        raise UserError('An attention whose keys are not tokens (it attends over channels) takes no further keys.')
    heads = heads.unsqueeze(-3) if like.dim() > 4 else heads
    return heads.expand(*like.shape[:-2], *heads.shape[-2:])
