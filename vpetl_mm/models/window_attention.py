"""3D shifted-window attention on scaled_dot_product_attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmaction.models.backbones.swin import WindowAttention3D
from torch import Tensor


class FastWindowAttention3D(WindowAttention3D):
    """Video Swin's window attention (Liu et al. 2022) with the same weights, keys and results as mmaction2's.

    softmax(q k^T / sqrt(d) + B + M) v in one fused call. While the relative-position-bias table is frozen,
    the sum of bias B and shift mask M is made once and kept. Deltas on ``qkv`` and ``proj`` (PATT, LoRA) act
    as on the host's own.
    """

    _kept: tuple | None = None

    @classmethod
    def like(cls, attention: WindowAttention3D) -> dict:
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
        windows, n, channels = x.shape
        n_w = 1 if mask is None else mask.shape[0]
        qkv = self.qkv(x).view(windows // n_w, n_w, n, 3, self.num_heads, -1).permute(3, 0, 1, 4, 2, 5)
        q, k, v = qkv.flatten(2, 3)  # each (B, nW * heads, N, C / heads)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=self._bias_and_mask(n, mask, q.dtype),
            dropout_p=self.attn_drop.p if self.training else 0.0,
            scale=self.scale,
        )
        y = y.view(windows, self.num_heads, n, -1).transpose(1, 2).reshape(windows, n, channels)
        return self.proj_drop(self.proj(y))

    def _bias_and_mask(self, n: int, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
        """B + M of shape (1, nW * heads, N, N), kept while the table is frozen."""
        table = self.relative_position_bias_table
        if table.requires_grad or torch.compiler.is_compiling():
            return self._make_bias_and_mask(n, mask).to(dtype)
        # the version tells of any in-place change, such as a checkpoint being loaded; the alias that is kept holds
        # the storage, so that no other table can come to lie at its address
        key = (n, dtype, table.device, table._version, table.data_ptr())
        if self._kept is None or self._kept[0] != key or self._kept[1] is not mask:
            with torch.inference_mode(False), torch.no_grad():
                self._kept = (key, mask, table.detach(), self._make_bias_and_mask(n, mask).to(dtype))
        return self._kept[3]

    def _make_bias_and_mask(self, n: int, mask: Tensor | None) -> Tensor:
        index = self.relative_position_index[:n, :n].reshape(-1)
        bias = self.relative_position_bias_table[index].view(n, n, -1).permute(2, 0, 1)
        bias = bias.unsqueeze(0) if mask is None else bias.unsqueeze(0) + mask.unsqueeze(1)
        return bias.reshape(1, -1, n, n)

    def __getstate__(self) -> dict:
        """Copies and pickles do not carry what is kept: it is made again at the first call."""
        return {k: v for k, v in self.__dict__.items() if k != '_kept'}
