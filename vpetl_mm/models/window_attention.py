"""Shifted-window attention, 3D and 2D, in one fused call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmaction.models.backbones.swin import WindowAttention3D
from mmpretrain.models.utils import WindowMSA
from torch import Tensor

from ..petl import ExtraTokens, extra_tokens, is_transformed
from .recompute import note
from .token_attention import scaled_dot_product

KEPT_UP_TO = 2**26  # bytes of one attention's sum of bias and mask


class FastWindowAttention:
    """Mixed into a window attention: the same weights, keys and results as the host library's.

    softmax(q k^T / sqrt(d) + B + M) v in one fused call. While the relative-position-bias table is frozen, the sum
    of bias B and shift mask M is made once and kept; in training, or where the sum is large, the bias alone. Deltas
    on ``qkv`` and ``proj`` (PATT, LoRA) act as on the host's own; keys and values of others (prefix, prompt,
    concatenated PATT) join those of every window, without a position bias.
    """

    serves_deltas = True
    _kept: tuple | None = None

    @classmethod
    def like(cls, attention: torch.nn.Module) -> dict:
        """The config that builds an equal of ``attention``."""
        return dict(
            embed_dims=attention.embed_dims,
            window_size=attention.window_size,
            num_heads=attention.num_heads,
            qkv_bias=attention.qkv.bias is not None,
            qk_scale=attention.scale,
            attn_drop=attention.attn_drop.p,
            proj_drop=attention.proj_drop.p,
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend inside each window.

        Args:
            x: tokens of shape (B * nW, N, C), all windows of one clip together.
            mask: the shift mask of shape (nW, N, N), 0 or -100; None without a shift.

        Returns:
            (B * nW, N, C).
        """
        windows, n, _ = x.shape
        n_w = 1 if mask is None else mask.shape[0]
        # masks differ from window to window, so that several clips share one only where windows and heads are one
        # dimension of it; that copies q, k and v
        together = windows > n_w > 1

        def heads(tokens: Tensor) -> Tensor:  # (B * nW, n, C) to (B * nW, heads, n, d) or (B, nW * heads, n, d)
            parts = tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            return parts.unflatten(0, (-1, n_w)).flatten(1, 2) if together else parts

        q, k, v = self.qkv(x).chunk(3, dim=-1)
        extras = extra_tokens(self, x, self.qkv)
        if extras:
            k = torch.cat([*(e.k.expand(windows, -1, -1) for e in extras), k], dim=1)
            v = torch.cat([*(e.v.expand(windows, -1, -1) for e in extras), v], dim=1)
        bias = self._bias_and_mask(n, mask, q.dtype, extras)[: max(windows, 1)]  # no windows: every clip was dropped
        dropout = self.attn_drop.p if self.training else 0.0
        bias = bias.flatten(0, 1).unsqueeze(0) if together else bias
        y = scaled_dot_product(heads(q), heads(k), heads(v), dropout, self.scale, bias)
        if together:
            y = y.unflatten(1, (n_w, -1)).flatten(0, 1)
        if not windows:
            y = y + bias.sum()  # no window: the bias has a gradient of zeros all the same
        return self.proj_drop(self.proj(y.transpose(1, 2).flatten(2)))

    def _bias_and_mask(
        self, n: int, mask: Tensor | None, dtype: torch.dtype, extras: Sequence[ExtraTokens] = ()
    ) -> Tensor:
        """B + M of shape (nW or 1, heads, N, n_extra + N), kept while the table is frozen."""
        columns = tuple((e.k.shape[-2], e.masked) for e in extras)
        if self.relative_position_bias_table.requires_grad or is_transformed():
            return self._make_bias_and_mask(n, mask, columns).to(dtype)
        size = 0 if mask is None else mask.numel() * self.num_heads * dtype.itemsize
        if mask is None or columns or (size <= KEPT_UP_TO and not torch.is_grad_enabled()):
            return self._keep(n, mask, columns, dtype)
        bias = self._keep(n, None, (), dtype)  # the sum is nW times as large

        def add() -> Tensor:
            return bias + mask.unsqueeze(1).to(dtype)

        return note('mask', add(), add)

    def _keep(self, n: int, mask: Tensor | None, columns: tuple[tuple[int, bool], ...], dtype: torch.dtype) -> Tensor:
        table = self.relative_position_bias_table
        # the version tells of any in-place change, such as a checkpoint being loaded; the alias that is kept holds
        # the storage, so that no other table can come to lie at its address
        key = (n, columns, dtype, table.device, table._version, table.data_ptr())
        if self._kept is None or self._kept[0] != key or self._kept[1] is not mask:
            with torch.inference_mode(False), torch.no_grad():
                self._kept = (key, mask, table.detach(), self._make_bias_and_mask(n, mask, columns).to(dtype))
        return self._kept[3]

    def _make_bias_and_mask(self, n: int, mask: Tensor | None, columns: tuple[tuple[int, bool], ...]) -> Tensor:
        index = self.relative_position_index[:n, :n].reshape(-1)
        bias = self.relative_position_bias_table[index].view(n, n, -1).permute(2, 0, 1)
        bias = bias.unsqueeze(0) if mask is None else bias.unsqueeze(0) + mask.unsqueeze(1)
        if columns:
            bias = torch.cat([*(_column(bias, mask, *c) for c in columns), bias], dim=-1)
        return bias.contiguous()

    @property
    def kept_bytes(self) -> int:
        """The memory of what is kept."""
        return 0 if self._kept is None else self._kept[3].nbytes

    def __getstate__(self) -> dict:
        """Copies and pickles do not carry what is kept: it is made again at the first call."""
        return {k: v for k, v in self.__dict__.items() if k != '_kept'}


def _column(bias: Tensor, mask: Tensor | None, length: int, masked: bool) -> Tensor:
    """The mask of added keys, (nW, heads, N, length): none, or that of the tokens they belong to."""
    if masked and mask is not None:
        return mask.unsqueeze(1).expand(-1, bias.shape[1], -1, -1).to(bias.dtype)
    return bias.new_zeros(*bias.shape[:-1], length)


class FastWindowAttention3D(FastWindowAttention, WindowAttention3D):
    """Video Swin's window attention (Liu et al. 2022); see :class:`FastWindowAttention`."""


class FastWindowMSA(FastWindowAttention, WindowMSA):
    """The 2D Swin's window attention (Liu et al. 2021); see :class:`FastWindowAttention`."""
