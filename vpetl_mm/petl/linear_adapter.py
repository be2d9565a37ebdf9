"""LinearAdapter: AdaptMLP's bottleneck, after a single linear layer or parallel to it."""

from __future__ import annotations

import math

from torch import Tensor, nn

from .addition import Addition
from .checks import ACTIVATIONS, at_least_one, check_slots, number, one_of
from .delta import LinearDelta


class LinearAdapter(LinearDelta):
    """SPT-Adapter's structured update (SPT, Sec. 1, and its published code) of one linear layer::

        sequential:  y + s up(act(down(y)))     # after the layer
        parallel:    y + s up(act(down(x)))     # parallel to it

    On a fused qkv each slot has its own bottleneck. Parameters of one: 2 d_out r + r + d_out (sequential). down
    is drawn Kaiming-uniform (a = sqrt 5), up and both biases start at zero, so that step 0 is the plain backbone. On
    VideoMAE, which adds the biases of q and v after qkv, y lacks them.

    Args:
        in_dim: the layer's input width.
        out_dim: the width d_out of one slot of its output.
        host_slots: the parts of the layer's output, ``'qkv'`` or ``''``; the site sets it.
        slots: on a fused qkv, which of q, k, v are adapted. Defaults to ``'qkv'``; ignored elsewhere.
        d_bottle: the bottleneck's width r, at least 1. Defaults to 8.
        scale: the strength s. Defaults to 1.
        learn_scale: also train s, or with ``'channel'`` one for each channel of each slot. Defaults to False.
        mode: ``'sequential'`` (default) or ``'parallel'``.
        act: ``'GELU'`` (default), ``'GELUTanh'``, ``'QuickGELU'`` or ``'ReLU'``.
        dropout: on the bottleneck's input, in training. Defaults to 0.
        inner_dropout: between down and up, in training. Defaults to 0.

    Raises:
        UserError: for an invalid value.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        host_slots: str = '',
        *,
        slots: str = 'qkv',
        d_bottle: int = 8,
        scale: float = 1.0,
        learn_scale: bool | str = False,
        mode: str = 'sequential',
        act: str = 'GELU',
        dropout: float = 0.0,
        inner_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        at_least_one('d_bottle', d_bottle)
        sequential = one_of('LinearAdapter mode', mode, ('sequential', 'parallel')) == 'sequential'
        self.reads = 'output' if sequential else 'input'
        self.act = ACTIVATIONS[one_of('LinearAdapter act', act, tuple(ACTIVATIONS))]()
        self.dropout = nn.Dropout(number('dropout', dropout, 0, 1))
        self.inner_dropout = nn.Dropout(number('inner_dropout', inner_dropout, 0, 1))
        names = check_slots(slots) if host_slots else ['out']
        self.starts = {name: max(host_slots.find(name), 0) * out_dim for name in names}
        self._set_scale(scale, learn_scale, len(names) * out_dim)
        self.width = out_dim
        seen = out_dim if sequential else in_dim
        self.down = nn.ModuleDict({n: nn.Linear(seen, d_bottle) for n in names})
        self.up = nn.ModuleDict({n: nn.Linear(d_bottle, out_dim) for n in names})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every down again and set the rest to zero."""
        for name, down in self.down.items():
            nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
            for parameter in (down.bias, *self.up[name].parameters()):
                nn.init.zeros_(parameter)
        self._reset_scale()

    def forward(self, x: Tensor) -> list[Addition]:
        """Return the adapters' outputs, one per slot.

        Args:
            x: the layer's output, (..., d_out) or (..., 3 d_out), of which each slot's adapter reads its part; with
                ``mode='parallel'`` the layer's input, (..., d_in).
        """
        additions = []
        each = isinstance(self.scale, nn.Parameter) and self.scale.dim() > 0
        scales = self.scale.split(self.width) if each else [self.scale] * len(self.starts)
        for (name, start), scale in zip(self.starts.items(), scales, strict=True):
            seen = x.narrow(-1, start, self.width) if self.reads == 'output' else x
            h = self.inner_dropout(self.act(self.down[name](self.dropout(seen))))
            additions.append(Addition(h, self.up[name].weight, self.up[name].bias, scale, start))
        return additions
