"""PATT: parallel attention, the paper's prefix-tuning made a function of the tokens themselves."""

from __future__ import annotations

from torch import Tensor, nn

from .delta import Delta, Site, add_to_slots, at_least_one, check_slots, one_of

ACTIVATIONS = {'Tanh': nn.Tanh, 'ReLU': nn.ReLU, 'GELU': nn.GELU}


class PATT(Delta):
    """Parallel attention (V-PETL, Eq. 9 and 10), hosted on a fused qkv projection.

    One shared bottleneck makes an addition for each chosen slot from what the projection sees::

        K_p | V_p = up(act(down(x)))          # Eq. 9
        k <- k + s K_p;  v <- v + s V_p       # Eq. 10, before the heads' scaling

    Parameters for n slots with both biases: (n + 1) d r + r + n d.

    Args:
        dim: the width d of the tokens.
        d_bottle: the bottleneck's width r, at least 1.
        slots: which of q, k, v get an addition: ``'kv'`` (default), ``'qv'``, ``'qk'`` or ``'qkv'``.
        scale: the strength s. Defaults to 0.8.
        learn_scale: train s as well. Defaults to False.
        act: ``'Tanh'`` (default), ``'ReLU'`` or ``'GELU'``.
        bias: ``True`` (default) for both projections, ``'down'`` for the first alone, or ``False``.
        source: what is bottlenecked: ``'input'``, the tokens themselves.
        num_tokens: None, as the source is the input.
        mode: how the slots change: ``'add'``.
        init: ``'default'`` keeps nn.Linear's, as published, so that step 0 is already perturbed;
            ``'zero'`` starts with up at zero, so that step 0 is the plain backbone.

    Raises:
        UserError: for a value outside these.
    """

    places = ('qkv',)

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
        one_of('PATT source', source, ('input',))
        one_of('PATT num_tokens', num_tokens, (None,))
        one_of('PATT mode', mode, ('add',))
        one_of('PATT bias', bias, (True, False, 'down'))
        self.down = nn.Linear(dim, d_bottle, bias=bias is not False)
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
        self._reset_scale()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add to the chosen slots.

        Args:
            x: what the qkv projection sees, (..., d).
            y: what it gives, (..., 3 d).

        Returns:
            (..., 3 d).
        """
        additions = self.up(self.act(self.down(x))) * self.scale
        updates = dict(zip(self.slots, additions.chunk(len(self.slots), dim=-1), strict=True))
        return add_to_slots(y, updates, 'qkv')
