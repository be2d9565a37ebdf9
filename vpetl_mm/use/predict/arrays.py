"""Arrays and tensors as inputs."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...errors import UserError

WANTED = {
    True: 'a video is (T, H, W, 3) or (T, 3, H, W)',
    False: 'an image is (H, W, 3) or (3, H, W)',
}


def as_rgb(array: np.ndarray | Tensor, is_video: bool) -> np.ndarray:
    """Return a video as [T, H, W, 3] or an image as [H, W, 3], without a copy where that can be.

    Args:
        array: uint8, RGB, with the colours in the last dimension, or in front of height and width. Where both
            have a size of 3, the last one is the colours.
        is_video: whether it is a video.

    Raises:
        UserError: for other shapes and other types of numbers, such as floats, whose range could be any.
    """
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        array = array.float().numpy() if array.is_floating_point() else array.numpy()  # NumPy has no bfloat16
    dims, where = (4, 1) if is_video else (3, 0)
    if array.ndim == dims and array.shape[-1] != 3 and array.shape[where] == 3:
        array = np.moveaxis(array, where, -1)
    if array.ndim != dims or array.shape[-1] != 3 or not array.size or array.dtype != np.uint8:
        raise UserError(
            f'An array of {array.dtype} and shape {tuple(array.shape)} cannot be an input: {WANTED[is_video]}, uint8 '
            'from 0 to 255 in RGB; give several as a list.'
        )
    return array
