"""Shifted-window attention, 3D and 2D, open to what deltas add."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmaction.models.backbones.swin import WindowAttention3D
from mmpretrain.models.utils import WindowMSA
from torch import Tensor

from ..petl import ExtraTokens, extra_tokens
from ..petl.extra_tokens import joined


class FastWindowAttention:
    """Mixed into a window attention: the same weights, keys and results as the host library's.

    softmax(q k^T / sqrt(d) + B + M) v in one fused call, with the relative position bias B and the shift mask M.
    Deltas on ``qkv`` and ``proj`` (PATT, LoRA) act as on the host's own; keys and values of others (prefix, prompt,
    concatenated PATT) join those of every window, without a position bias.
    """

    serves_deltas = True
    dot_product = staticmethod(F.scaled_dot_product_attention)

    @classmethod
    def like(cls, attention: torch.nn.Module) -> dict:
        """Return the config of an equal attention."""
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
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        extras = extra_tokens(self, x, self.qkv)
        k, v = joined(k, v, extras)
        y = self.attend(q, k, v, self.bias_and_mask(x.shape[1], mask, extras, q.dtype))
        return self.proj_drop(self.proj(y))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Attend by heads.

        Args:
            q: (B * nW, N, C); ``k`` and ``v`` are (B * nW, n_extra + N, C).
            k: see ``q``.
            v: see ``q``.
            bias: B + M, (nW or 1, heads, N, n_extra + N).

        Returns:
            (B * nW, N, C).
        """
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        dropout = self.attn_drop.p if self.training else 0.0
        bias = bias if len(bias) == 1 else bias.repeat(q.shape[0] // bias.shape[0], 1, 1, 1)
        y = self.dot_product(q, k, v, attn_mask=bias, dropout_p=dropout, scale=self.scale)
        return y.transpose(1, 2).flatten(2)

    def bias_and_mask(self, n: int, mask: Tensor | None, extras: Sequence[ExtraTokens], dtype: torch.dtype) -> Tensor:
        """Return B + M, (nW or 1, heads, N, n_extra + N), for windows of ``n`` tokens."""
        index = self.relative_position_index[:n, :n].reshape(-1)
        bias = self.relative_position_bias_table[index].view(n, n, -1).permute(2, 0, 1)
        bias = bias.unsqueeze(0) if mask is None else bias.unsqueeze(0) + mask.unsqueeze(1)
        columns = [_columns(bias, mask, extra) for extra in extras]
        return torch.cat([*columns, bias], dim=-1).contiguous().to(dtype)


def _columns(bias: Tensor, mask: Tensor | None, extra: ExtraTokens) -> Tensor:
    """Return the mask of added keys, (nW, heads, N, n): zeros, or that of the tokens they belong to."""
    if extra.masked and mask is not None:
        return mask.unsqueeze(1).expand(-1, bias.shape[1], -1, -1).to(bias.dtype)
    return bias.new_zeros(*bias.shape[:-1], extra.k.shape[-2])


class FastWindowAttention3D(FastWindowAttention, WindowAttention3D):
    """Video Swin's window attention (Liu et al. 2022); see :class:`FastWindowAttention`."""


class FastWindowMSA(FastWindowAttention, WindowMSA):
    """The 2D Swin's window attention (Liu et al. 2021); see :class:`FastWindowAttention`."""
