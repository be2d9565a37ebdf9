"""Attention over all tokens of a plain ViT, open to what deltas add."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmaction.models.backbones.vit_mae import Attention
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor

from ..petl import extra_tokens
from ..petl.extra_tokens import joined


class TokenAttention:
    """Mixed into a ViT's attention: the same weights, keys and results as the host library's.

    Deltas on ``qkv`` and ``proj`` (PATT, LoRA) act through these modules; keys and values of others (prefix,
    prompt, concatenated PATT) join those of the tokens.
    """

    serves_deltas = True
    dot_product = staticmethod(F.scaled_dot_product_attention)

    def project(self, x: Tensor) -> Tensor:
        """Return the whole qkv projection, (..., d) to (..., 3 d)."""
        return self.qkv(x)

    def attend(self, x: Tensor, scale: float | None, dropout: float) -> tuple[Tensor, Tensor]:
        """Attend, without the output projection.

        Args:
            x: tokens of shape (B, N, d).
            scale: of q k^T; None for 1 / sqrt(d / heads).
            dropout: on the attention weights.

        Returns:
            The attended values and the tokens' own values, (B, N, d) each.
        """
        q, k, own = self.project(x).chunk(3, dim=-1)
        k, v = joined(k, own, extra_tokens(self, x, self.project))
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        y = self.dot_product(q, k, v, dropout_p=dropout if self.training else 0.0, scale=scale)
        return y.transpose(1, 2).flatten(2), own


class PETLMultiheadAttention(TokenAttention, MultiheadAttention):
    """mmpretrain's ViT attention; see :class:`TokenAttention`."""

    @classmethod
    def like(cls, attention: MultiheadAttention) -> dict:
        """Return the config of an equal attention, which then takes over the modules of ``attention``."""
        return dict(
            embed_dims=attention.embed_dims,
            num_heads=attention.num_heads,
            input_dims=attention.input_dims,
            attn_drop=attention.attn_drop,
            v_shortcut=attention.v_shortcut,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Attend, (B, N, d) to (B, N, d)."""
        y, v = self.attend(x, None, self.attn_drop)
        y = self.out_drop(self.gamma1(self.proj_drop(self.proj(y))))
        return y + v if self.v_shortcut else y


class PETLVideoMAEAttention(TokenAttention, Attention):
    """VideoMAE's attention as mmaction2 has it, going through ``qkv``; see :class:`TokenAttention`.

    The host's own multiplies by ``qkv.weight`` itself, past anything that sits on ``qkv``.
    """

    @classmethod
    def like(cls, attention: Attention) -> dict:
        """Return the config of an equal attention, which then takes over the modules and biases of ``attention``."""
        return dict(
            embed_dims=attention.embed_dims,
            num_heads=attention.num_heads,
            qkv_bias=hasattr(attention, 'q_bias'),
            qk_scale=attention.scale,
        )

    def project(self, x: Tensor) -> Tensor:
        """Return the projection with its biases, which only q and v have."""
        y = self.qkv(x)
        if not hasattr(self, 'q_bias'):
            return y
        return y + torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])

    def forward(self, x: Tensor) -> Tensor:
        """Attend, (B, N, d) to (B, N, d)."""
        y, _ = self.attend(x, self.scale, self.attn_drop.p)
        return self.proj_drop(self.proj(y))
