"""VideoMAE's block with its MLP branch in a method."""

from __future__ import annotations

from mmaction.models.backbones.vit_mae import Block
from torch import Tensor


class PETLVideoMAEBlock(Block):
    """mmaction2's VideoMAE block, in two branches, so that deltas can read the residual stream between them."""

    def _scaled(self, name: str, y: Tensor) -> Tensor:
        return getattr(self, name) * y if hasattr(self, name) else y

    def mlp_branch(self, x: Tensor) -> Tensor:
        """Return what the MLP adds to the stream, drop-path included; (B, N, d) to (B, N, d)."""
        return self.drop_path(self._scaled('gamma_2', self.mlp(self.norm2(x))))

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, (B, N, d) to (B, N, d)."""
        x = x + self.drop_path(self._scaled('gamma_1', self.attn(self.norm1(x))))
        return x + self.mlp_branch(x)
