"""AdapterPlus: Adapter+, a bottleneck behind the whole block."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .addition import Addition
from .checks import ACTIVATIONS, at_least_one, number, one_of
from .delta import Delta, Site
from .drop_path import DropBranch


class AdapterPlus(Delta):
    """Adapter+ (Steitz and Roth 2024), behind a whole block, on the residual stream h::

        h <- h + g * drop_path(up(act(down(h))))

    g has one value for each channel. The weights of down and up are drawn from a normal distribution with a standard
    deviation of 0.01, cut off at 0.02, the biases are zero and g is ``scale``: step 0 is close to the plain backbone,
    but not equal.

    Parameters: 2 d r + r + 2 d.

    Args:
        dim: the width d of the tokens.
        d_bottle: the bottleneck's width r, at least 1. Defaults to 8.
        scale: where g starts. Defaults to 1.
        learn_scale: ``'channel'`` (default): train g; True: one number in its place; False: the number is fixed.
        act: ``'GELU'`` (default), ``'GELUTanh'``, ``'QuickGELU'`` or ``'ReLU'``.
        dropout: on the bottleneck, in training. Defaults to 0.
        drop_path: how likely a row of the batch goes without the adapter, in training, in every block alike, as in
            the released code. Defaults to 0; published with 0.1.

    Raises:
        UserError: for an invalid value.
    """

    places = ('block',)
    reads = 'output'
    starts_plain = False

    def __init__(
        self,
        dim: int,
        *,
        d_bottle: int = 8,
        scale: float = 1.0,
        learn_scale: bool | str = 'channel',
        act: str = 'GELU',
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(dim, at_least_one('d_bottle', d_bottle))
        self.act = ACTIVATIONS[one_of('AdapterPlus act', act, tuple(ACTIVATIONS))]()
        self.dropout = nn.Dropout(number('dropout', dropout, 0, 1))
        self.up = nn.Linear(d_bottle, dim)
        self.drop = DropBranch(number('drop_path', drop_path, 0, 1))
        self._set_scale(scale, learn_scale, dim)
        self.reset_parameters()

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> Delta:
        """Build the adapter of one block, as wide as its output."""
        cls.check_options(options)
        return cls(site.out_dim, **options)

    def reset_parameters(self) -> None:
        """Draw both weights again, and set the biases to zero and g to where it starts."""
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
            nn.init.zeros_(layer.bias)
        self._reset_scale()

    def forward(self, y: Tensor) -> Addition | Tensor:
        """Return what is added to the block's output.

        Args:
            y: that output, (..., d).
        """
        h = self.dropout(self.act(self.down(y)))
        added = Addition(h, self.up.weight, self.up.bias, self.scale)
        return self.drop(added.value()) if self.drop.p and self.training else added
