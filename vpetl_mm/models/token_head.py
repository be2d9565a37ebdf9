"""Classification heads of the ViTs: BatchNorm and one linear layer on one token, for images and videos."""

from __future__ import annotations

from typing import Any

from mmaction.models.heads import TimeSformerHead
from mmengine.model import normal_init
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from ..petl.checks import one_of
from .folding import AttentionPool
from .video_head import check_head


class BatchNormed:
    """Mixed into a head with a linear layer: AdaptFormer's head, with a BatchNorm in front and small initial weights.

    The linear layer's weights are drawn from N(0, 0.01), its bias is zero. BatchNorm1d has running statistics and no
    weights.
    """

    def _add_bn(self, bn: bool, in_channels: int) -> None:
        self.bn = (
            nn.BatchNorm1d(in_channels, eps=1e-6, affine=False) if one_of('head bn', bn, (True, False)) else None
        )

    @property
    def linear(self) -> nn.Linear:
        """The linear layer; each host library has its own name for it."""
        return next(m for m in self.children() if isinstance(m, nn.Linear))

    def fold(self) -> None:
        """Make the BatchNorm, with its running statistics, part of the linear layer's weights, and take it off."""
        if self.bn is None:
            return
        weight, bias = self.linear.weight.detach(), self.linear.bias.detach()
        scaled = weight.double() / (self.bn.running_var.double() + self.bn.eps).sqrt()
        bias.sub_(scaled @ self.bn.running_mean.double())
        weight.copy_(scaled)
        self.bn = None

    def init_weights(self) -> None:
        """Draw the linear layer's weights again and forget the running statistics."""
        normal_init(self.linear, std=0.01)
        if self.bn is not None:
            self.bn.reset_running_stats()

    def _normalised(self, x: Tensor) -> Tensor:
        """(B, d) to (B, d); in training a batch needs two samples."""
        return x if self.bn is None else self.bn(x)


class PETLImageHead(BatchNormed, LinearClsHead):
    """mmpretrain's linear head behind a BatchNorm (AdaptFormer's recipe for images).

    Args:
        num_classes: how many classes.
        in_channels: the token's width d.
        bn: put the BatchNorm in front. Defaults to True.
        kwargs: of mmpretrain's LinearClsHead.
    """

    def __init__(self, num_classes: int, in_channels: int, bn: bool = True, **kwargs: Any) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        self._add_bn(bn, in_channels)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Classify the last of ``feats``, (B, d): logits of (B, num_classes), float32 also under autocast."""
        return self.fc(self._normalised(self.pre_logits(feats))).float()


class PETLTokenHead(BatchNormed, TimeSformerHead):
    """mmaction2's head on one token a clip, behind a BatchNorm (AdaptFormer's recipe, for V-PETL's Tables 7 and 8).

    Args:
        num_classes: how many classes.
        in_channels: the token's width d.
        bn: put the BatchNorm in front. Defaults to True.
        temporal_pool: of features of frames: ``'mean'`` (default), or ``'attention'``, see :class:`AttentionPool`, d
            more parameters of the head.
        average_clips: how test views are averaged. Defaults to ``'score'``, the logits' mean.
        kwargs: of mmaction2's TimeSformerHead.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        bn: bool = True,
        temporal_pool: str = 'mean',
        average_clips: str | None = 'score',
        **kwargs: Any,
    ) -> None:
        check_head(num_classes, average_clips, **kwargs)
        super().__init__(num_classes, in_channels, average_clips=average_clips, **kwargs)
        self._add_bn(bn, in_channels)
        attends = one_of('temporal_pool', temporal_pool, ('mean', 'attention')) == 'attention'
        self.pool = AttentionPool(in_channels) if attends else None

    def init_weights(self) -> None:
        """Draw the linear layer's weights again, forget the running statistics and start pooling as the mean."""
        super().init_weights()
        if self.pool is not None:
            self.pool.reset_parameters()

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Classify tokens of (B, d), or of frames, (B, d, T, 1, 1): logits of (B, num_classes), float32."""
        if x.ndim == 5:
            x = x.mean((2, 3, 4)) if self.pool is None else self.pool(x)
        return super().forward(self._normalised(x), **kwargs).float()
