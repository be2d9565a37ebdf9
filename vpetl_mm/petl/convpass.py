"""Convpass: bottlenecks with a convolution, parallel to attention and MLP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from .addition import Addition
from .checks import QuickGELU, at_least_one, number, one_of
from .delta import Delta, Site
from .drop_path import DropBranch, at_rates
from .grid import Grid


class Convpass(Delta):
    """Convolutional bypasses (Jie and Deng 2022), parallel to attention and MLP, both of which read a norm's output::

        h <- h + drop_path(MSA(norm1(h))) + s drop_path(f(norm1(h)))
        h <- h + drop_path(MLP(norm2(h))) + s drop_path(f'(norm2(h)))
        f(x) = up(Q(conv(Q(down(x))))),  Q(x) = x sigmoid(1.702 x)

    conv is 3 x 3 over the patches of an image or frame, with zeros around it, also where the attention is in windows.
    The class token passes through the same convolution as an image of one patch. The two drop-paths of a line draw
    apart. Where the MLP applies drop-path inside (on Video Swin and VideoMAE), a row of which it leaves out the MLP
    goes without f' too.

    down's weight is drawn Xavier-uniform; up and all biases start at zero, so that step 0 is the plain backbone.
    Parameters at each of the two places: 2 d r + 2 r + d + 9 r^2.

    Args:
        dim: the width d of the tokens.
        grid: where they lie.
        d_bottle: the bottleneck's width r, at least 1. Defaults to 8.
        scale: the strength s. Defaults to 1.
        dropout: in front of up, in training. Defaults to 0.1.
        conv_init: how the convolution starts: ``'identity'`` (default) or ``'xavier'``, Xavier-uniform.
        drop_path: how likely a row of the batch goes without f, in training, in the last block; less, evenly, in
            earlier ones. Defaults to 0.

    Raises:
        UserError: for an invalid value.
    """

    places = ('between', 'mlp')
    default_at = places
    needs_grid = True

    def __init__(
        self,
        dim: int,
        grid: Grid,
        *,
        d_bottle: int = 8,
        scale: float = 1.0,
        dropout: float = 0.1,
        conv_init: str = 'identity',
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.grid, self.scale = grid, number('scale', scale)
        self.conv_init = one_of('Convpass conv_init', conv_init, ('identity', 'xavier'))
        self.down = nn.Linear(dim, at_least_one('d_bottle', d_bottle))
        self.conv = nn.Conv2d(d_bottle, d_bottle, 3, padding=1)
        self.act = QuickGELU()
        self.dropout = nn.Dropout(number('dropout', dropout, 0, 1))
        self.up = nn.Linear(d_bottle, dim)
        self.drop = DropBranch(number('drop_path', drop_path, 0, 1))
        self.reset_parameters()

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build the deltas, whose drop-path grows with the depth."""
        return at_rates(cls, sites, options)

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> Delta:
        """Build the delta beside one attention or MLP.

        Raises:
            UserError: also where the tokens of the backbone lie in no known grid.
        """
        cls.check_options(options)
        delta = cls(site.in_dim, site.known_grid('Convpass'), **options)
        delta.reads = 'norm' if site.place == 'between' else 'input'
        return delta

    def reset_parameters(self) -> None:
        """Draw down again, start the convolution again, and set the rest to zero."""
        nn.init.xavier_uniform_(self.down.weight)
        if self.conv_init == 'identity':
            nn.init.dirac_(self.conv.weight)
        else:
            nn.init.xavier_uniform_(self.conv.weight)
        for parameter in (self.down.bias, self.conv.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Addition | Tensor:
        """Return what is added beside the attention or the MLP.

        Args:
            x: the output of the norm in front of it, (..., d); see :class:`Grid`.
        """
        h = self.grid.over_images(self.act(self.down(x)), self.conv, 'Convpass')
        added = Addition(self.dropout(self.act(h)), self.up.weight, self.up.bias, self.scale)
        return self.drop(added.value()) if self.drop.p and self.training else added
