"""Video recognition with deltas."""

from __future__ import annotations

from mmaction.models.recognizers import Recognizer3D
from torch import Tensor

from .petl_model import PETLModel


class PETLRecognizer3D(PETLModel, Recognizer3D):
    """mmaction2's Recognizer3D with a frozen, pre-trained backbone and deltas; see :class:`PETLModel`.

    Inputs are clips of shape (B, views, 3, T, H, W); outputs are mmaction2's.
    """

    def as_extracted(self, values: Tensor) -> tuple[Tensor, dict]:
        """Return features in the form of ``extract_feat``."""
        return values, {}
