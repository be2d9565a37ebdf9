"""PATT: parallel attention, prefix-tuning whose prefix is a function of the tokens themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import UserError
from .addition import Addition, for_slots
from .checks import at_least_one, check_slots, one_of
from .delta import Delta, Site
from .extra_tokens import ExtraTokens

ACTIVATIONS = {'Tanh': nn.Tanh, 'ReLU': nn.ReLU, 'GELU': nn.GELU}


class PATT(Delta):
    """Parallel attention (V-PETL, Eq. 9 and 10), hosted on a qkv projection.

    One bottleneck computes an addition to each chosen slot from the projection's input x::

        K_p | V_p = up(act(down(x)))          # Eq. 9
        k <- k + s K_p;  v <- v + s V_p       # Eq. 10

    Parameters for n slots with both biases: (n + 1) d r + r + n d; a table adds num_tokens d.

    Args:
        dim: the width d of the tokens.
        out_dim: the width of one slot, where it is another (Hiera). Defaults to None, d.
        d_bottle: the bottleneck's width r, at least 1.
        slots: which of q, k, v get an addition: ``'kv'`` (default), ``'qv'``, ``'qk'`` or ``'qkv'``.
        scale: the strength s. Defaults to 0.8.
        learn_scale: also train s. Defaults to False.
        act: ``'Tanh'`` (default), ``'ReLU'`` or ``'GELU'``.
        bias: ``True`` (default) for both projections, ``'down'`` for the first alone, or ``False``.
        source: what enters the bottleneck: ``'input'`` (default), the tokens; ``'tokens'``, a trained table of
            (num_tokens, d) instead, drawn from a standard normal distribution ("No Z" in Table 6). A window with
            another number of tokens is then an error.
        num_tokens: the table's length; None, the default, for ``source='input'``.
        mode: ``'add'`` (default) is Eq. 10; ``'concat'`` joins s K_p and s V_p to k and v as further tokens
            ("Concat" in Table 6): key j has the shift mask of token j and no position bias. It needs slots ``'kv'``.
        init: ``'default'`` keeps nn.Linear's, as published, so that step 0 already differs from the plain
            backbone; ``'zero'`` sets up to zero, so that step 0 is the plain backbone.

    Raises:
        UserError: for an invalid value.
    """

    places = ('qkv',)

    def __init__(
        self,
        dim: int,
        out_dim: int | None = None,
        *,
        d_bottle: int,
        slots: str = 'kv',
        scale: float = 0.8,
        learn_scale: bool = False,
        act: str = 'Tanh',
        bias: bool | str = True,
        source: str = 'input',
        num_tokens: int | None = None,
        mode: str = 'add',
        init: str = 'default',
    ) -> None:
        super().__init__()
        self.slots = check_slots(slots)
        self.d_bottle = at_least_one('d_bottle', d_bottle)
        self.init = one_of('PATT init', init, ('default', 'zero'))
        self.joins_attention = one_of('PATT mode', mode, ('add', 'concat')) == 'concat'
        if self.joins_attention:
            one_of('PATT slots with mode="concat"', slots, ('kv',))
            self.reads = None
        self.num_tokens = _table_length(source, num_tokens)
        if self.num_tokens:
            self.tokens = nn.Parameter(torch.empty(self.num_tokens, dim))
        one_of('PATT bias', bias, (True, False, 'down'))
        self.down = nn.Linear(dim, d_bottle, bias=bias is not False)
        self.act = ACTIVATIONS[one_of('PATT act', act, tuple(ACTIVATIONS))]()
        self.up = nn.Linear(d_bottle, len(slots) * (out_dim or dim), bias=bias is True)
        self.starts_plain = init == 'zero' and mode == 'add'
        self._set_scale(scale, learn_scale)
        self.reset_parameters()

    @classmethod
    def at_site(cls, site: Site, **options) -> PATT:
        """Build PATT for a projection of (..., d) to (..., 3 d), of one layer or three."""
        cls.check_options(options)
        assert site.slots == 'qkv', f'{site.name} is not a qkv projection'
        return cls(site.in_dim, site.width, **options)

    def reset_parameters(self) -> None:
        """Draw both projections again; see ``init``."""
        self.down.reset_parameters()
        self.up.reset_parameters()
        if self.init == 'zero':
            for parameter in self.up.parameters():
                nn.init.zeros_(parameter)
        if self.num_tokens:
            nn.init.normal_(self.tokens)
        self._reset_scale()

    def bottleneck(self, x: Tensor) -> Tensor:
        """Return act(down(x)) (Eq. 9), (..., r)."""
        if self.num_tokens:
            if x.shape[-2] != self.num_tokens:
                raise UserError(
                    f'PATT has a table of num_tokens={self.num_tokens}, but a window here has {x.shape[-2]} tokens, '
                    'prompts included.'
                )
            x = self.tokens
        return self.act(self.down(x))

    def forward(self, x: Tensor) -> list[Addition]:
        """Return what is added to the chosen slots of qkv (Eq. 10).

        Args:
            x: the input of the qkv projection, (..., d).
        """
        return for_slots(self.bottleneck(x), self.up, self.scale, self.slots)

    def extra_tokens(self, x: Tensor, project: Callable[[Tensor], Tensor]) -> ExtraTokens:
        """With ``mode='concat'``, return s K_p and s V_p as tokens, (B, N, d) or (N, d) each."""
        k, v = (self.up(self.bottleneck(x)) * self.scale).chunk(2, dim=-1)
        return ExtraTokens(k, v, masked=True)


def _table_length(source: str, num_tokens: int | None) -> int | None:
    if one_of('PATT source', source, ('input', 'tokens')) == 'input':
        return one_of('PATT num_tokens with source="input"', num_tokens, (None,))
    return at_least_one('num_tokens', num_tokens)
