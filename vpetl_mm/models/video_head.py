"""Classification head of the video models."""

from __future__ import annotations

from typing import Any

from mmaction.models.heads import I3DHead
from torch import Tensor

from ..petl.checks import at_least_one, number, one_of
from .folding import POOLS, AttentionPool


def check_head(num_classes: Any, average_clips: Any, label_smooth_eps: Any = 0.0, **_: Any) -> None:
    """Raise :class:`UserError` for options at which mmaction2's heads would fail in the first step or test."""
    at_least_one('num_classes', num_classes)
    one_of('average_clips', average_clips, ('score', 'prob', None))
    number('label_smooth_eps', label_smooth_eps, 0, 1)


class PETLVideoHead(I3DHead):
    """Mean pooling and one linear layer with nn.Linear's default init, as in the published code.

    Args:
        num_classes: how many classes.
        in_channels: the features' width.
        temporal_pool: ``'mean'`` (default) weighs all feature frames alike; ``'overlap'`` means neighbouring
            pairs first, as published, which for four frames weighs them 1/6, 1/3, 1/3, 1/6; ``'attention'`` learns
            the weights, see :class:`AttentionPool`, d more parameters of the head.
        average_clips: how test views are averaged. Defaults to ``'score'``, the logits' mean.
        dropout_ratio: before the linear layer. Defaults to 0.
        kwargs: of mmaction2's I3DHead.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        temporal_pool: str = 'mean',
        average_clips: str | None = 'score',
        dropout_ratio: float = 0.0,
        **kwargs: Any,
    ) -> None:
        check_head(num_classes, average_clips, **kwargs)
        super().__init__(num_classes, in_channels, average_clips=average_clips, dropout_ratio=dropout_ratio, **kwargs)
        self.temporal_pool = one_of('temporal_pool', temporal_pool, POOLS)
        self.pool = AttentionPool(in_channels) if temporal_pool == 'attention' else None

    def init_weights(self) -> None:
        """Draw the linear layer again by nn.Linear's rule, and start pooling as the mean."""
        self.fc_cls.reset_parameters()
        if self.pool is not None:
            self.pool.reset_parameters()

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Classify.

        Args:
            x: features of shape (B, C, T, H, W).

        Returns:
            Logits of shape (B, num_classes), in float32 also under autocast: numpy has no bfloat16.
        """
        if self.temporal_pool == 'overlap' and x.shape[2] > 1:
            x = (x[:, :, :-1] + x[:, :, 1:]) / 2
        if self.pool is not None:
            x = self.pool(x)[..., None, None, None]
        return super().forward(x, **kwargs).float()
