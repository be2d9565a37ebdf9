"""LinearAdapter: AdaptMLP's bottleneck behind (or beside) a single linear layer."""

from __future__ import annotations

import math

from torch import Tensor, nn

from .delta import LinearDelta, add_to_slots, at_least_one, check_slots, number, one_of

ACTIVATIONS = {'GELU': nn.GELU, 'ReLU': nn.ReLU}


class LinearAdapter(LinearDelta):
    """SPT-Adapter's structured update (SPT, Sec. 1, and its published code) of one linear layer::

        sequential:  y + s up(act(down(y)))     # behind the layer
        parallel:    y + s up(act(down(x)))     # beside it

    On a fused qkv each slot has a bottleneck of its own. Parameters of one: 2 d_out r + r + d_out
    (sequential). down is drawn Kaiming-uniform (a = sqrt 5), up and both biases start at zero, so that step 0 is
    the plain backbone. On VideoMAE, whose biases of q and v are added behind qkv, y is without them.

    Args:
        in_dim: the layer's input width.
        out_dim: the width d_out of one slot of its output.
        host_slots: the parts of the layer's output, ``'qkv'`` or ``''``; set by the site.
        slots: on a fused qkv, which of q, k, v are adapted. Defaults to ``'qkv'``; ignored elsewhere.
        d_bottle: the bottleneck's width r, at least 1. Defaults to 8.
        scale: the strength s. Defaults to 1.
        mode: ``'sequential'`` (default) or ``'parallel'``.
        act: ``'GELU'`` (default) or ``'ReLU'``.
        dropout: on the bottleneck's input, in training. Defaults to 0.

    Raises:
        UserError: for a value outside these.
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
        mode: str = 'sequential',
        act: str = 'GELU',
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        at_least_one('d_bottle', d_bottle)
        self.host_slots = host_slots
        self.sequential = one_of('LinearAdapter mode', mode, ('sequential', 'parallel')) == 'sequential'
        self.act = ACTIVATIONS[one_of('LinearAdapter act', act, tuple(ACTIVATIONS))]()
        self.dropout = nn.Dropout(number('dropout', dropout, 0, 1))
        self.scale = number('scale', scale)
        names = check_slots(slots) if host_slots else ['out']
        seen = out_dim if self.sequential else in_dim
        self.down = nn.ModuleDict({n: nn.Linear(seen, d_bottle) for n in names})
        self.up = nn.ModuleDict({n: nn.Linear(d_bottle, out_dim) for n in names})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every down anew and set the rest to zero."""
        for name, down in self.down.items():
            nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
            for parameter in (down.bias, *self.up[name].parameters()):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the adapters' outputs.

        Args:
            x: the layer's input, (..., d_in).
            y: the layer's output, (..., d_out) or (..., 3 d_out).

        Returns:
            A tensor of the shape of ``y``.
        """
        if not self.host_slots:
            return y + self._branch('out', y if self.sequential else x)
        parts = dict(zip(self.host_slots, y.chunk(len(self.host_slots), dim=-1), strict=True))
        updates = {n: self._branch(n, parts[n] if self.sequential else x) for n in self.down}
        return add_to_slots(y, updates, self.host_slots)

    def _branch(self, name: str, seen: Tensor) -> Tensor:
        return self.up[name](self.act(self.down[name](self.dropout(seen)))) * self.scale
