"""Images of every depth and kind become the 8 bits that they show, or a sentence that names the file."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from building import build_transform
from PIL import Image, PngImagePlugin

from vpetl_mm import UserError
from vpetl_mm.preparation.inspection import inspect_image

GREY = np.tile(np.linspace(20, 235, 160), (6, 1))
BYTES = np.rint(GREY).astype(int)
RGB = np.stack([BYTES, 255 - BYTES, np.full_like(BYTES, 7)], -1).astype(np.uint8)


def load(path):
    """What training reads of a file, in RGB; ``check`` must be of the same mind."""
    step = build_transform(dict(type='LoadImageFromFile', imdecode_backend='pillow'))
    try:
        found = step(dict(img_path=str(path)))
    except UserError:
        with pytest.raises(Exception):  # noqa: B017 whatever it is, the worker reports it
            inspect_image(str(path))
        raise
    assert not inspect_image(str(path)).problem and found['img_shape'] == found['img'].shape[:2]
    assert found['img'].dtype == np.uint8
    return found['img'][..., ::-1].astype(int)


def tiff(path, values, bits, white_is_zero=False):
    """A grey TIFF, uncompressed and little-endian, by the letter of the specification."""
    height, width = values.shape
    if bits == 12:  # packed, the first of two values in the upper bits
        pairs = values.reshape(-1, 2).astype(int)
        data = b''.join((a << 12 | b).to_bytes(3, 'big') for a, b in pairs.tolist())
    else:
        data = values.astype('<u2').tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 0 if white_is_zero else 1)]
    tags += [(273, 8), (277, 1), (278, height), (279, len(data))]
    entries = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags)
    where = struct.pack('<4sI', b'II*\0', 8 + len(data))
    path.write_bytes(where + data + struct.pack('<H', len(tags)) + entries + bytes(4))


def save(values, dtype, suffix):
    return lambda path: Image.fromarray(values.astype(dtype)).save(path, suffix)


DEEP = {
    'png16': save(GREY * 257, np.uint16, 'PNG'),
    'tiff16': save(GREY * 257, np.uint16, 'TIFF'),
    'tiff32': save(GREY * 257, np.int32, 'TIFF'),
    'float': save(GREY / 255, np.float32, 'TIFF'),
    'jp2': lambda path: Image.fromarray((GREY * 257).astype(np.uint16)).save(path, 'JPEG2000', irreversible=False),
    'pgm12': lambda path: path.write_bytes(b'P5 160 6 4095\n' + np.rint(GREY / 255 * 4095).astype('>u2').tobytes()),
    'tiff12': lambda path: tiff(path, np.rint(GREY / 255 * 4095), 12),
    'inverted': lambda path: tiff(path, 65535 - np.rint(GREY * 257), 16, white_is_zero=True),
}


@pytest.mark.parametrize('save', DEEP.values(), ids=DEEP)
def test_deep_images_keep_their_greys(tmp_path, save):
    save(tmp_path / 'x')
    image = load(tmp_path / 'x')
    assert image.shape == (6, 160, 3) and abs(image - BYTES[..., None]).max() <= 1


@pytest.mark.parametrize('turn', [1, 3, 6])
def test_a_deep_image_is_turned_as_its_exif_data_say(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray((GREY * 257).astype(np.uint16)).save(tmp_path / 'x.png', exif=exif)
    expected = {1: BYTES, 3: BYTES[::-1, ::-1], 6: np.rot90(BYTES, -1)}[turn]
    assert abs(load(tmp_path / 'x.png')[..., 0] - expected).max() <= 1


def twelve_bit_colours(path):
    """48-bit PNG, which Pillow cannot write."""
    rows = (np.stack([GREY] * 3, -1) * 16).astype('>u2')
    lines = b''.join(b'\0' + row.tobytes() for row in rows)
    with path.open('wb') as stream:
        stream.write(b'\x89PNG\r\n\x1a\n')
        PngImagePlugin.putchunk(stream, b'IHDR', struct.pack('>IIBBBBB', 160, 6, 16, 2, 0, 0, 0))
        PngImagePlugin.putchunk(stream, b'IDAT', zlib.compress(lines))
        PngImagePlugin.putchunk(stream, b'IEND', b'')


def text_bomb(path):
    info = PngImagePlugin.PngInfo()
    for n in range(2):
        info.add_text(f'text{n}', ' ' * 34_000_000, zip=True)
    Image.fromarray(RGB).save(path, 'PNG', pnginfo=info)


def damaged_ppm(path):
    Image.fromarray(RGB).save(path, 'PPM')
    path.write_bytes(path.read_bytes().replace(b'255', b'2.5', 1))


def cut(path):
    Image.fromarray(RGB).save(path, 'PNG')
    path.write_bytes(path.read_bytes()[:60])


REFUSED = {
    '12 bits in 16': (save(GREY * 16, np.uint16, 'TIFF'), 'largest value is 3760 of 65535'),
    '12 bits in colours of 16': (twelve_bit_colours, 'nearly black, or 12 bits in 16'),
    'bytes as int32': (save(GREY, np.int32, 'TIFF'), 'largest value is 235 of 65535'),
    'more than 16 bits': (save(GREY * 70_000, np.int32, 'TIFF'), 'should be 0 to 65535'),
    'negative': (save(GREY - 100, np.int32, 'TIFF'), 'values are -80 to 135'),
    'floats above 1': (save(GREY, np.float32, 'TIFF'), 'should be 0 to 1'),
    'not a number': (save(np.where(GREY > 100, np.nan, 0.5), np.float32, 'TIFF'), 'values are nan to nan'),
    'too many pixels': (lambda path: Image.new('1', (19_000, 10_000)).save(path, 'PNG'), '190000000 pixels'),
    'a bomb of texts': (text_bomb, 'Too much memory used in text chunks'),
    'damaged ppm': (damaged_ppm, 'invalid literal'),
    'a cut png': (cut, 'truncated'),
    'no image': (lambda path: path.write_bytes(b'ftypheic'), 'it is none of AVIF, BMP'),
    'a program': (lambda path: Image.fromarray(RGB).save(path, 'EPS'), 'it is none of AVIF, BMP'),
    'not there': (lambda path: None, 'No such file'),
}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('write', 'said'), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_a_sentence_with_the_path(tmp_path, write, said):
    path = tmp_path / 'x.img'
    write(path)
    with pytest.raises(UserError, match=said) as error:
        load(path)
    assert f'The image {path} cannot be decoded' in str(error.value) and '\n' not in str(error.value)


def rgba(path):
    Image.fromarray(np.dstack([RGB, BYTES.astype(np.uint8)])).save(path, 'PNG')


def animated(path):
    Image.fromarray(RGB).save(path, 'GIF', save_all=True, append_images=[Image.new('RGB', (160, 6), 'red')])


def palette(path):
    Image.fromarray(RGB).quantize(256).save(path, 'PNG', transparency=0)


def text(path):
    info = PngImagePlugin.PngInfo()
    info.add_text('parameters', 'x' * 3_000_000, zip=True)
    Image.fromarray(RGB).save(path, 'PNG', pnginfo=info)


KINDS = {
    'alpha': (rgba, 0),
    'megabytes of text': (text, 0),
    'the first of an animation': (animated, 9),
    'a palette with a transparent colour': (palette, 9),
    'cmyk': (lambda path: Image.fromarray(RGB).convert('CMYK').save(path, 'TIFF'), 1),
    'avif': (lambda path: Image.fromarray(RGB).save(path, 'AVIF', quality=100), 40),
}


@pytest.mark.parametrize(('write', 'apart'), KINDS.values(), ids=KINDS)
def test_other_kinds_show_their_colours(tmp_path, write, apart):
    write(tmp_path / 'x')
    assert abs(load(tmp_path / 'x') - RGB).mean() <= apart
