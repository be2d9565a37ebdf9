"""What an attention looks like inside: where its q, k and v come from, one layer or three, seen as one projection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Inner:
    """The inside of an attention class; names are those of attributes below the attention.

    Args:
        weights: of the projection, ``('qkv.weight',)`` or one each for q, k and v.
        biases: of q, k and v, '' for none, or of all; () where each weight's layer has its own. Defaults to ().
        key_norm: the norm of the keys, per head. Defaults to '', none.
        mask: the argument of ``forward`` that holds the windows' shift mask, (nW, N, N). Defaults to '', none.
        joins: whether further keys and values can join: it calls ``scaled_dot_product_attention``. Defaults to True.
        kinds: the attention's class has to be one of these, or a subclass. Defaults to (), any.
        keeps_order: whether its keys are in the order of its input's tokens. Defaults to True.
    """

    weights: tuple[str, ...] = ('qkv.weight',)
    biases: tuple[str, ...] = ()
    key_norm: str = ''
    mask: str = ''
    joins: bool = True
    keeps_order: bool = True
    kinds: tuple[str, ...] = ()


def inside(module: nn.Module, name: str) -> Tensor | nn.Module | None:
    """Return what ``name``, such as ``'q_proj.weight'``, leads to; None where there is nothing."""
    found = module
    for part in name.split('.'):
        found = getattr(found, part, None)
        if found is None:
            return None
    return found


class Projection:
    """The projection of one attention to q, k and v, (..., d_in) to (..., 3 d).

    Args:
        attention: owns the weights.
        inner: says where.
    """

    def __init__(self, attention: nn.Module, inner: Inner) -> None:
        self.attention, self.inner = attention, inner

    @property
    def weights(self) -> list[Tensor]:
        """The weight, (3 d, d_in), or one for each of q, k and v, (d, d_in)."""
        return [inside(self.attention, name) for name in self.inner.weights]

    @property
    def weight(self) -> Tensor:
        """The weight of the fused form, (3 d, d_in)."""
        weights = self.weights
        return weights[0] if len(weights) == 1 else torch.cat(weights)

    @property
    def biases(self) -> list[Tensor | None]:
        """The biases of q, k and v, (d,) each; None for none, and (3 d,) in one where they are one parameter."""
        return [inside(self.attention, name) if name else None for name in self.bias_names]

    @property
    def bias_names(self) -> list[str]:
        """The names of the biases below the attention, '' for none."""
        own = self.inner.biases or tuple(name.removesuffix('weight') + 'bias' for name in self.inner.weights)
        return [name if inside(self.attention, name) is not None else '' for name in own]

    @property
    def bias(self) -> Tensor | None:
        """The bias of the fused form, (3 d,), zeros where a part has none; None where all have none."""
        biases = self.biases
        if all(b is None for b in biases):
            return None
        if len(biases) == 1:
            return biases[0]
        known = next(b for b in biases if b is not None)
        return torch.cat([torch.zeros_like(known) if b is None else b for b in biases])

    @property
    def in_features(self) -> int:
        """The width of its input."""
        return self.weights[0].shape[1]

    @property
    def out_features(self) -> int:
        """The width of its output, 3 d."""
        return sum(w.shape[0] for w in self.weights)

    def is_trained(self, name: str) -> bool:
        """Tell whether ``name`` below the attention is a parameter, not a buffer."""
        return isinstance(inside(self.attention, name), nn.Parameter)

    def parameters(self) -> Iterator[tuple[str, str, int, int]]:
        """Yield the parameters of the parts: weight's name, bias's name or '', first row of the fused form, rows."""
        start, biases = 0, self.bias_names
        for i, (name, weight) in enumerate(zip(self.inner.weights, self.weights, strict=True)):
            yield name, biases[i] if len(biases) > i else '', start, weight.shape[0]
            start += weight.shape[0]
