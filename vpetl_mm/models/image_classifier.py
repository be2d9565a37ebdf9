"""Image classification with deltas."""

from __future__ import annotations

from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor

from .petl_model import PETLModel


class PETLImageClassifier(PETLModel, ImageClassifier):
    """mmpretrain's ImageClassifier with a frozen, pre-trained backbone and deltas; see :class:`PETLModel`.

    Inputs are images of shape (B, 3, H, W); outputs are mmpretrain's.
    """

    head_name = 'head'

    def as_extracted(self, values: Tensor) -> tuple[Tensor]:
        """Return features in the form of ``extract_feat``."""
        return (values,)
