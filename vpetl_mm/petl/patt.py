"""PATT: parallel attention, the paper's prefix-tuning made a function of the tokens themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import UserError
from .delta import Delta, Site, add_to_slots, at_least_one, check_slots, one_of
from .extra_tokens import ExtraTokens
from .linear import FastLinear, activated
from .update import add_up_to_slots

ACTIVATIONS = {'Tanh': nn.Tanh, 'ReLU': nn.ReLU, 'GELU': nn.GELU}


class PATT(Delta):
    """Parallel attention (V-PETL, Eq. 9 and 10), hosted on a fused qkv projection.

    One shared bottleneck makes an addition for each chosen slot from what the projection sees::

        K_p | V_p = up(act(down(x)))          # Eq. 9
        k <- k + s K_p;  v <- v + s V_p       # Eq. 10, before the heads' scaling

    Parameters for n slots with both biases: (n + 1) d r + r + n d; a table adds num_tokens d.

    Args:
        dim: the width d of the tokens.
        d_bottle: the bottleneck's width r, at least 1.
        slots: which of q, k, v get an addition: ``'kv'`` (default), ``'qv'``, ``'qk'`` or ``'qkv'``.
        scale: the strength s. Defaults to 0.8.
        learn_scale: train s as well. Defaults to False.
        act: ``'Tanh'`` (default), ``'ReLU'`` or ``'GELU'``.
        bias: ``True`` (default) for both projections, ``'down'`` for the first alone, or ``False``.
        source: what is bottlenecked: ``'input'`` (default), the tokens themselves; ``'tokens'``, a trained
            table of (num_tokens, d) in their place, drawn from a standard normal distribution ("No Z" in
            Table 6). A window of another number of tokens is an error then.
        num_tokens: the table's length; None, the default, for ``source='input'``.
        mode: ``'add'`` (default) is Eq. 10; ``'concat'`` puts s K_p and s V_p beside k and v as further
            tokens ("Concat" in Table 6), key j under the shift mask of token j and without a position
            bias; slots are ``'kv'`` then.
        init: ``'default'`` keeps nn.Linear's, as published, so that step 0 is already perturbed;
            ``'zero'`` starts with up at zero, so that step 0 is the plain backbone.

    Raises:
        UserError: for a value outside these.
    """

    places = ('qkv',)
    has_inplace = True

    def __init__(
        self,
        dim: int,
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
        self.stream = 'keys' if one_of('PATT mode', mode, ('add', 'concat')) == 'concat' else 'host'
        if mode == 'concat':
            one_of('PATT slots with mode="concat"', slots, ('kv',))
        self.num_tokens = _table_length(source, num_tokens)
        if self.num_tokens:
            self.tokens = nn.Parameter(torch.empty(self.num_tokens, dim))
        one_of('PATT bias', bias, (True, False, 'down'))
        self.down = FastLinear(dim, d_bottle, bias=bias is not False)
        self.act = ACTIVATIONS[one_of('PATT act', act, tuple(ACTIVATIONS))]()
        self.up = nn.Linear(d_bottle, len(slots) * dim, bias=bias is True)
        self._set_scale(scale, learn_scale)
        self.reset_parameters()

    @classmethod
    def at_site(cls, site: Site, **options) -> PATT:
        """Build PATT for a fused projection of (..., d) to (..., 3 d)."""
        cls.check_options(options)
        assert site.slots == 'qkv', f'{site.name} is no fused qkv projection'
        return cls(site.in_dim, **options)

    def reset_parameters(self) -> None:
        """Draw both projections anew; see ``init``."""
        self.down.reset_parameters()
        self.up.reset_parameters()
        if self.init == 'zero':
            for parameter in self.up.parameters():
                nn.init.zeros_(parameter)
        if self.num_tokens:
            nn.init.normal_(self.tokens)
        self._reset_scale()

    def _bottleneck(self, x: Tensor) -> Tensor:
        """act(down(x)) (Eq. 9), (..., r)."""
        if self.num_tokens:
            if x.shape[-2] != self.num_tokens:
                raise UserError(
                    f'PATT has a table of num_tokens={self.num_tokens}, and a window (or the prompts beside it) here '
                    f'has {x.shape[-2]} tokens.'
                )
            x = self.tokens
        return activated(self.down, self.act, x)

    def _additions(self, x: Tensor) -> tuple[Tensor, ...]:
        """s K_p, s V_p, ... (Eq. 9), a tensor of (..., d) for each slot."""
        return (self.up(self._bottleneck(x)) * self.scale).chunk(len(self.slots), dim=-1)

    def extra_tokens(self, x: Tensor, project: Callable[[Tensor], Tensor]) -> ExtraTokens:
        """With ``mode='concat'``: what is put beside k and v, (B, N, d) or (N, d) each."""
        return ExtraTokens(*self._additions(x), masked=True)

    def forward(self, x: Tensor, y: Tensor, inplace: bool = False) -> Tensor:
        """Add to the chosen slots.

        Args:
            x: what the qkv projection sees, (..., d).
            y: what it gives, (..., 3 d).
            inplace: ``y`` may be overwritten. Defaults to False.

        Returns:
            (..., 3 d).
        """
        if self.num_tokens:  # the same additions in every window
            return add_to_slots(y, dict(zip(self.slots, self._additions(x), strict=True)), 'qkv')
        return add_up_to_slots(y if inplace else y.clone(), self._bottleneck(x), self.up, self.scale, self.slots)


def _table_length(source: str, num_tokens: int | None) -> int | None:
    if one_of('PATT source', source, ('input', 'tokens')) == 'input':
        return one_of('PATT num_tokens with source="input"', num_tokens, (None,))
    return at_least_one('num_tokens', num_tokens)
