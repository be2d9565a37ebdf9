"""torch's nn.MultiheadAttention, going through its layers, so that deltas on them act."""

from __future__ import annotations

import torch
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

        Args:
            attn_mask: added to the scores, or True where a key is hidden; (N, N) or (B heads, N, N).
            is_causal: a hint about ``attn_mask``, as in torch.

        Raises:
            UserError: for what is not self-attention of a batch, for ``key_padding_mask`` and for ``is_causal``
                without a mask, where weights are needed, and for further keys of its own (``bias_k``,
                ``add_zero_attn``).
        """
        if not (key is None or key is query) or not (value is None or value is query) or key_padding_mask is not None:
            raise UserError('nn.MultiheadAttention is served as self-attention alone, without key_padding_mask.')
        if query.dim() != 3 or (is_causal and attn_mask is None):
            raise UserError(
                'nn.MultiheadAttention is served for batches, (B, N, d), and takes is_causal with attn_mask.'
            )
        if self.bias_k is not None or self.add_zero_attn:
            raise UserError('nn.MultiheadAttention with deltas takes neither bias_k nor add_zero_attn.')
        if need_weights:
            raise UserError('nn.MultiheadAttention with deltas returns no weights; pass need_weights=False.')
        x = query if self.batch_first else query.transpose(0, 1)
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        if attn_mask is not None:  # torch's own says what is hidden, its function below what is seen
            attn_mask = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask
            attn_mask = attn_mask.unflatten(0, (-1, self.num_heads)) if attn_mask.dim() == 3 else attn_mask
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropout)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return (y if self.batch_first else y.transpose(0, 1)), None
