"""torch's nn.MultiheadAttention, going through its layers, so that deltas on them act."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError


class SelfAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention of tokens among themselves: the same weights, keys and results.

    The host's own multiplies by ``out_proj.weight`` itself, past anything that sits on ``out_proj``.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Attend, (B, N, d), or (N, B, d) without ``batch_first``, to the same shape; no weights are returned.

        Raises:
            UserError: for what is not self-attention, for ``key_padding_mask``, and where weights are needed.
        """
        if not (key is None or key is query) or not (value is None or value is query) or key_padding_mask is not None:
            raise UserError('nn.MultiheadAttention is served as self-attention alone, without key_padding_mask.')
        if need_weights:
            raise UserError('nn.MultiheadAttention with deltas returns no weights; pass need_weights=False.')
        x = query if self.batch_first else query.transpose(0, 1)
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        if attn_mask is not None and attn_mask.dtype == bool:
            attn_mask = ~attn_mask
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropout)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return (y if self.batch_first else y.transpose(0, 1)), None
