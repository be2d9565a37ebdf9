"""Window attention that keeps the sum of position bias and shift mask, and shares it among clips.

On a CPU and on a GPU the sum is read instead of gathered, added and copied for every clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.window_attention import FastWindowAttention3D, FastWindowMSA
from ..petl import ExtraTokens
from .recompute import note
from .watch import is_transformed

KEPT_UP_TO = 2**26  # bytes of one attention's sum of bias and mask


class CachedWindowAttention:
    """Mixed into :class:`~vpetl_mm.models.window_attention.FastWindowAttention`.

    While the relative-position-bias table is frozen, the sum of bias B and shift mask M is computed once and kept; in
    training, or where the sum is large, the bias alone.
    """

    _kept: tuple | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Attend by heads; shapes as in the base class."""
        n_w = len(bias)
        # masks differ from window to window, so that several clips share one only where windows and heads are one
        # dimension of it; that copies q, k and v
        together = len(q) > n_w > 1

        def heads(tokens: Tensor) -> Tensor:  # (B * nW, n, C) to (B * nW, heads, n, d) or (B, nW * heads, n, d)
            parts = tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            return parts.unflatten(0, (-1, n_w)).flatten(1, 2) if together else parts

        bias = bias.flatten(0, 1).unsqueeze(0) if together else bias
        dropout = self.attn_drop.p if self.training else 0.0
        y = self.dot_product(heads(q), heads(k), heads(v), attn_mask=bias, dropout_p=dropout, scale=self.scale)
        y = y.unflatten(1, (n_w, -1)).flatten(0, 1) if together else y
        return y.transpose(1, 2).flatten(2)

    def bias_and_mask(self, n: int, mask: Tensor | None, extras: Sequence[ExtraTokens], dtype: torch.dtype) -> Tensor:
        """Return B + M, (nW or 1, heads, N, n_extra + N), kept while the table is frozen."""
        if self.relative_position_bias_table.requires_grad or is_transformed():
            return super().bias_and_mask(n, mask, extras, dtype)
        size = 0 if mask is None else mask.numel() * self.num_heads * dtype.itemsize
        if mask is None or extras or (size <= KEPT_UP_TO and not torch.is_grad_enabled()):
            return self._keep(n, mask, extras, dtype)
        bias = self._keep(n, None, (), dtype)  # the sum is nW times as large

        def add() -> Tensor:
            return bias + mask.unsqueeze(1).to(dtype)

        return note('mask', add(), add)

    def _keep(self, n: int, mask: Tensor | None, extras: Sequence[ExtraTokens], dtype: torch.dtype) -> Tensor:
        table = self.relative_position_bias_table
        # the version changes with any in-place change, such as loading a checkpoint; the alias that is kept holds
        # the storage, so that no other table can come to lie at its address
        columns = [(extra.k.shape[-2], extra.masked) for extra in extras]
        key = (n, columns, dtype, table.device, table._version, table.data_ptr())
        if self._kept is None or self._kept[0] != key or self._kept[1] is not mask:
            with torch.inference_mode(False), torch.no_grad():
                self._kept = (key, mask, table.detach(), super().bias_and_mask(n, mask, extras, dtype))
        return self._kept[3]

    @property
    def kept_bytes(self) -> int:
        """Bytes of what is kept."""
        return 0 if self._kept is None else self._kept[3].nbytes

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles do not carry what is kept: the first call computes it again."""
        return {k: v for k, v in self.__dict__.items() if k != '_kept'}


class CachedWindowAttention3D(CachedWindowAttention, FastWindowAttention3D):
    """Video Swin's window attention; see :class:`CachedWindowAttention`."""


class CachedWindowMSA(CachedWindowAttention, FastWindowMSA):
    """The 2D Swin's window attention; see :class:`CachedWindowAttention`."""
