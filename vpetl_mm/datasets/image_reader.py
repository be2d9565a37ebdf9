"""Reads images of any depth as 8 bits, and names the file that cannot be read."""

from __future__ import annotations

import io

import numpy as np
from mmcv.image.io import _pillow2array  # private, but makes 8-bit images equal to mmcv's bit for bit
from mmcv.transforms import LoadImageFromFile as PlainLoadImageFromFile
from mmengine import fileio
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from ..errors import UserError, reason

# Image generators write megabytes of text beside the picture. Pillow still limits their sum to 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
DARK = 16  # an image whose largest value is below a 16th of white may have 12 bits in 16
NEARLY_BLACK = 'its largest value is {high:g} of {white}: nearly black, or 12 bits in 16; convert it to 8 bits'
BITS, PHOTOMETRIC = 258, 262  # tags of TIFF
# No others: Pillow would have Ghostscript run what an EPS file holds, whatever its name.
FORMATS = ('AVIF', 'BMP', 'GIF', 'JPEG', 'JPEG2000', 'PNG', 'PPM', 'TGA', 'TIFF', 'WEBP')
DECLARING = ('PPM', 'JPEG2000')  # these files say what white is, and Pillow scales by it


class UnreadableImage(UserError):
    """An image that cannot be read."""


def decode_image(content: bytes, color_type: str = 'color') -> np.ndarray:
    """Decode an image to [H, W, 3] of uint8 in BGR, turned as its EXIF data say.

    Grey images of 16 bits or of whole numbers up to 65,535 are divided by 257, of floats from 0 to 1 multiplied by
    255, and rounded.

    Args:
        content: the file's bytes.
        color_type: as in mmcv; 'unchanged' keeps the depth. Defaults to 'color'.

    Raises:
        Exception: of many kinds, if the image is damaged; ValueError if its values are out of range, or so low that
            white must be another value.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnidentifiedImageError(f'it is none of {", ".join(FORMATS)}') from None
    # of colours of 16 bits Pillow keeps the high byte
    high_byte = any(';16' in str(tile.args) for tile in image.tile)
    if color_type != 'unchanged' and (image.mode == 'F' or image.mode.startswith('I')):
        image, high_byte = _eight_bits(image), False
    array = _pillow2array(image, color_type)
    if high_byte and 0 < array.max() < 256 // DARK:
        raise ValueError(NEARLY_BLACK.format(high=int(array.max()) * 256, white=65535))
    return array


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert a grey image of 16 or 32 bits to 8."""
    tags = image.tag_v2 if image.format == 'TIFF' else {}
    white = 1 if image.mode == 'F' else 4095 if tags.get(BITS) == (12,) else 65535
    declared = image.format in DECLARING or white == 4095
    values = np.asarray(ImageOps.exif_transpose(image), np.float32)
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= white:
        raise ValueError(f'its values are {low:g} to {high:g} and should be 0 to {white}; convert it to 8 bits')
    if 0 < high < white / DARK and not declared:
        raise ValueError(NEARLY_BLACK.format(high=high, white=white))
    if tags.get(PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds for 8 bits alone
        values = white - values
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


class LoadImageFromFile(PlainLoadImageFromFile):
    """mmcv's LoadImageFromFile; with ``imdecode_backend='pillow'`` it reads any depth (:func:`decode_image`).

    Raises:
        UnreadableImage: if the image cannot be read, with its path.
    """

    def transform(self, results: dict) -> dict | None:
        """Add the image, ``img`` [H, W, 3] (uint8, BGR), ``img_shape`` and ``ori_shape`` to ``results``."""
        path = results['img_path']
        try:
            if self.imdecode_backend != 'pillow':
                return super().transform(results)
            image = decode_image(fileio.get(path, backend_args=self.backend_args), self.color_type)
        except Exception as error:  # Pillow names no set of errors for a damaged file
            if self.ignore_empty:
                return None
            raise UnreadableImage(f'The image {path} cannot be decoded ({reason(error)}).') from error
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
