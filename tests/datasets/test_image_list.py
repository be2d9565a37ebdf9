"""Images from your own list, and the errors of wrong lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from building import build
from PIL import Image

from vpetl_mm import UserError
from vpetl_mm.datasets.image_list import PETLImageList

LINES = ['a/red one.png 0', 'b/green.png 1', 'b/blue.png 1', 'a/grey.png 0', 'b/ü.png 1']


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five images of one value each, 10, 20, ..., with their list and class names."""
    for n, line in enumerate(LINES):
        path = tmp_path / 'images' / line.rpartition(' ')[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), 10 * (n + 1), np.uint8)).save(path)
    (tmp_path / 'list.txt').write_text('\n'.join(LINES) + '\n\n')
    (tmp_path / 'classes.txt').write_text('a\nb\n')
    return tmp_path


def built(folder: Path, **options) -> PETLImageList:
    steps = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='PackInputs')]
    where = dict(data_root=str(folder), data_prefix='images', classes=str(folder / 'classes.txt'))
    return build(dict(dict(type='PETLImageList', ann_file='list.txt', pipeline=steps, **where), **options))


def test_images_and_labels(folder):
    data = built(folder)
    assert data.num_classes == 2 and data.metainfo['classes'] == ('a', 'b')
    assert data.get_gt_labels().tolist() == [0, 1, 1, 0, 1]
    for n in range(5):
        assert data[n]['inputs'].shape == (3, 6, 8) and (data[n]['inputs'] == 10 * (n + 1)).all()


def test_a_part_is_held_out(folder):
    parts = [built(folder, holdout=0.4, held_out=out) for out in (False, True)]
    paths = [{p.get_data_info(n)['img_path'] for n in range(len(p))} for p in parts]
    assert len(paths[1]) == 2 and len(paths[0] | paths[1]) == 5


def test_wrong_lists_and_a_broken_image(folder):
    with pytest.raises(UserError, match=r'none.txt does not exist'):
        built(folder, ann_file='none.txt')
    with pytest.raises(UserError, match='label 1 is outside the classes 0 to 0'):
        built(folder, classes=['a'])
    (folder / 'images/b/green.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'green.png cannot be decoded'):
        built(folder)[1]
