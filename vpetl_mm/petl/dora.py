"""DoRA: LoRA of a weight's direction, with its magnitude trained apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .delta import Site
from .inner import Projection
from .lora import LoRA
from .update import Update


class DoRA(LoRA):
    """Weight-decomposed low-rank adaptation (Liu et al. 2024) of a linear layer::

        W' = m V / ||V||,  V = W + s B A,  s = alpha / rank      # their Eq. 5

    The norm is that of each row, one output (the paper writes W transposed, and says columns). It is a constant in
    the backward pass (their Sec. 4.3). m starts at ||W|| and B at zero, so that step 0 is the plain backbone.
    On fused q, k and v the slots that are not adapted keep their rows. Dropout acts on the input of B A alone.

    Parameters: LoRA's, and d_out for each slot.

    Args:
        in_dim: the layer's input width.
        out_dim: the width of one slot of its output.
        host_slots: the parts of the layer's output, ``'qkv'`` or ``''``; the site sets it.
        layer: whose weight m starts from; referenced, not owned.
        slots, rank, alpha, dropout, inner_dropout: see :class:`~.lora.LoRA`.

    Raises:
        UserError: for an invalid value.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        host_slots: str,
        layer: nn.Module | Projection,
        *,
        slots: str = 'qv',
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.0,
        inner_dropout: float = 0.0,
    ) -> None:
        options = dict(slots=slots, rank=rank, alpha=alpha, dropout=dropout, inner_dropout=inner_dropout)
        super().__init__(in_dim, out_dim, host_slots, **options)
        self.__dict__['layer'] = layer  # no child
        self.m = nn.ParameterDict({name: torch.empty(out_dim) for name in self.A})
        self.reset_parameters()

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> DoRA:
        """Build the delta for a plain or a fused linear layer."""
        cls.check_options(options)
        return cls(site.in_dim, site.width, site.slots, site.layer, **options)

    def reset_parameters(self) -> None:
        """Draw every A again, set every B to zero and every m to the norms of the host's rows."""
        super().reset_parameters()
        # LoRA draws its own before m is there; a host on the meta device has no norms
        if 'm' in self._modules and not self.layer.weight.is_meta:
            for name, m in self.m.items():
                m.data.copy_(self._rows(self.layer.weight, name).norm(dim=1))

    def update(self, weight: Tensor, bias: Tensor | None) -> Update:
        """Return the gains m / ||V|| of the terms s B A; the bias keeps its own strength."""
        terms = super().update(weight, bias).low_rank
        with torch.no_grad():
            V = Update(terms).weights(weight, None)[0]
            norms = {name: self._rows(V, name).norm(dim=1) for name in self.m}
        gain = torch.ones_like(weight[:, 0])
        for name, m in self.m.items():
            gain = torch.cat([gain[: self.starts[name]], m / norms[name], gain[self.starts[name] + len(m) :]])
        return Update(terms, gain, None if bias is None else bias - gain * bias, self.dropout)

    def _rows(self, weight: Tensor, name: str) -> Tensor:
        return weight[self.starts[name] : self.starts[name] + len(self.m[name])]
