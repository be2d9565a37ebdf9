"""A sentence for an image that cannot be decoded."""

from __future__ import annotations

from typing import Any

from ..errors import UserError


class ReadableImages:
    """Mixin that stands before a data set of mmpretrain whose samples are files.

    Raises:
        UserError: when an image is read that cannot be decoded.
    """

    def prepare_data(self, idx: int) -> Any:
        """The sample after the pipeline."""
        try:
            return super().prepare_data(idx)
        except OSError as error:  # what Pillow raises on a broken image
            path = self.get_data_info(idx)['img_path']
            raise UserError(f'The image {path} cannot be decoded ({error}){self._advice()}.') from error

    def _advice(self) -> str:
        return ''
