"""SVHN from .mat files as MATLAB and the authors write them, and the errors of wrong ones."""

from __future__ import annotations

import pickle
import struct
import zlib

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_array

from vpetl_mm import UserError
from vpetl_mm.datasets.svhn import SVHN

LABELS = np.array([1, 9, 10, 2, 10], np.uint8)


def arrays(count: int = 5) -> dict[str, np.ndarray]:
    """X and y as in the official files; image n is red = row, green = column, blue = n."""
    row, column, number = np.ogrid[:32, :32, :count]
    images = np.zeros((32, 32, 3, count), np.uint8)
    images[:, :, 0], images[:, :, 1], images[:, :, 2] = row, column, number
    return dict(X=images, y=np.resize(LABELS, (count, 1)))


@pytest.fixture
def folder(tmp_path):
    for split in ('train', 'test', 'extra'):
        savemat(tmp_path / f'{split}_32x32.mat', arrays(), do_compression=True)
    return tmp_path


def refused(folder, text: str) -> None:
    """Build the training split, which must be refused with the file and where to get it."""
    with pytest.raises(UserError, match=text) as error:
        SVHN(str(folder))
    said = str(error.value)
    assert '\n' not in said and 'http://ufldl.stanford.edu/housenumbers/' in said
    assert str(folder / 'train_32x32.mat') in said


@pytest.mark.parametrize('split', ['train', 'test', 'extra'])
def test_images_and_labels(folder, split):
    data = SVHN(str(folder), split)
    assert len(data) == 5 and data.num_classes == 10 and data.metainfo['classes'] == tuple('0123456789')
    assert data.get_gt_labels().tolist() == [1, 9, 0, 2, 0]
    for n in range(5):
        image = data[n]['img']
        assert image.shape == (32, 32, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
        assert tuple(image[30, 7]) == (30, 7, n)
        assert type(data[n]['gt_label']) is int


def test_uncompressed_files_and_labels_of_another_type_are_read(tmp_path):
    savemat(tmp_path / 'train_32x32.mat', dict(X=arrays()['X'], y=arrays()['y'].astype(float)))
    assert SVHN(str(tmp_path)).get_gt_labels().tolist() == [1, 9, 0, 2, 0]


def test_the_official_splits_are_told_apart(folder):
    savemat(folder / 'test_32x32.mat', arrays(3))
    assert len(SVHN(str(folder), 'train')) == 5 and len(SVHN(str(folder), 'test')) == 3


def test_it_pickles(folder):
    assert len(pickle.loads(pickle.dumps(SVHN(str(folder))))) == 5


def test_memory_is_that_of_the_images(tmp_path):
    savemat(tmp_path / 'train_32x32.mat', arrays(200))
    data = SVHN(str(tmp_path))
    assert data.data_bytes.nbytes < 1.15 * 200 * 32 * 32 * 3 and not data.data_list


def test_a_missing_file(tmp_path):
    refused(tmp_path, r'train_32x32\.mat does not exist; download')


@pytest.mark.parametrize('compressed', [True, False])
@pytest.mark.parametrize('share', [0.0, 0.01, 0.3, 0.99])
def test_a_truncated_file(folder, share, compressed):
    path = folder / 'train_32x32.mat'
    savemat(path, arrays(), do_compression=compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(folder, 'is damaged or not a .mat file|should hold X')


@pytest.mark.parametrize('content', [b'', b'<html>404 Not Found</html>\n' * 50, b'\x89HDF\r\n\x1a\n' + bytes(600)])
def test_another_kind_of_file(tmp_path, content):
    (tmp_path / 'train_32x32.mat').write_bytes(content)
    refused(tmp_path, 'is damaged or not a .mat file')


@pytest.mark.parametrize(
    'content',
    [
        dict(y=arrays()['y']),
        dict(X=arrays()['X']),
        dict(Z=arrays()['X']),
        dict(arrays(), X=arrays()['X'].transpose(3, 0, 1, 2)),
        dict(arrays(), X=arrays()['X'][:, :, :1]),
        dict(arrays(), X=arrays()['X'][:, :, 0]),
        dict(arrays(), X=arrays()['X'] / 255),
        dict(arrays(), y=arrays(4)['y']),
        dict(arrays(), y=LABELS[None]),
        dict(X=arrays()['X'][..., :0], y=arrays()['y'][:0]),
    ],
    ids=['no X', 'no y', 'neither', 'N first', 'grey', '3 axes', 'floats', 'fewer labels', 'row of labels', 'empty'],
)
def test_arrays_of_another_shape(tmp_path, content):
    savemat(tmp_path / 'train_32x32.mat', content)
    refused(tmp_path, r'should hold X \(32 x 32 x 3 x N, uint8\) and y \(N x 1\), and has')


def mat5(*elements):
    """A .mat file of version 5 with these compressed elements."""
    packed = [zlib.compress(e, 1) for e in elements]
    return b'MATLAB 5.0'.ljust(124) + b'\0\1IM' + b''.join(struct.pack('<II', 15, len(p)) + p for p in packed)


def matrix(kind, shape, content, name=b''):
    """An element of a class (1 is a cell, 9 uint8), whose content is given with its own tag."""
    body = struct.pack('<IIII', 6, 8, kind, 0) + struct.pack('<II', 5, 4 * len(shape))
    body += struct.pack(f'<{len(shape)}i', *shape) + bytes(-4 * len(shape) % 8)
    body += struct.pack('<II', 1, len(name)) + name + bytes(-len(name) % 8) + content
    return struct.pack('<II', 14, len(body)) + body


def nested_cells(depth):
    cell = len(matrix(1, (1, 1), b''))
    heads = [matrix(1, (1, 1), b'', b'y' * (n == 0)) for n in range(depth)]
    sizes = [len(h) - 8 + cell * (depth - 1 - n) for n, h in enumerate(heads)]
    return b''.join(struct.pack('<II', 14, size) + head[8:] for head, size in zip(heads, sizes, strict=True))


MANY = 70_000_000
HOSTILE = {
    'cell': dict(y=np.array([1, 'x', 2.0], dtype=object)[:, None]),
    'struct': dict(y=dict(a=1)),
    'sparse': dict(y=csc_array(np.eye(5))),
    'nested cells': mat5(nested_cells(200_000)),
    'bomb': mat5(
        matrix(9, (32, 32, 3, 5), struct.pack('<II', 2, MANY) + bytes(MANY), b'X'),
        matrix(9, (5, 1), struct.pack('<II', 2, 5) + bytes([1] * 5), b'y'),
    ),
    'twice': mat5(*(matrix(9, (1, 1), struct.pack('<II', 2, 1) + b'\1'.ljust(8, b'\0'), b'y') for _ in range(2))),
}


@pytest.mark.parametrize('content', HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_array_of_numbers_or_takes_too_much_memory_is_not_read(tmp_path, content, monkeypatch):
    path = tmp_path / 'train_32x32.mat'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        savemat(path, dict(X=arrays()['X'], **content))
    monkeypatch.setattr('vpetl_mm.datasets.svhn.loadmat', None)
    refused(tmp_path, 'X and y should be one array of numbers each|more than 100 times')


@pytest.mark.parametrize('label', [0, 11, -1, 2.5])
def test_a_label_outside_1_to_10(tmp_path, label):
    labels = arrays()['y'].astype(float)
    labels[3] = label
    savemat(tmp_path / 'train_32x32.mat', dict(arrays(), y=labels))
    refused(tmp_path, f'has the label {label}.*, outside 1 to 10')
