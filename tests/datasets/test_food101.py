"""Food-101 in its official layout, and the errors of missing or damaged parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from building import build as build_dataset
from PIL import Image
from trees import put

from vpetl_mm import UserError
from vpetl_mm.datasets.food101 import PETLFood101

CLASSES = ('apple_pie', 'creme_brulee', 'waffles')  # the first, one in the middle, the last
LOAD = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='PackInputs')]


@pytest.fixture
def folder(tmp_path):
    """Three classes with four training and two test images each."""
    for name in CLASSES:
        (tmp_path / 'images' / name).mkdir(parents=True)
        for i in range(6):
            noise = np.random.default_rng(i).integers(0, 256, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / f'images/{name}/{i}.jpg')
    for split, numbers in (('train', range(4)), ('test', (4, 5))):
        put(tmp_path / f'meta/{split}.txt', ''.join(f'{name}/{i}\n' for name in CLASSES for i in numbers))
    return tmp_path


def build(folder: Path, **options) -> PETLFood101:
    return build_dataset(dict(type='PETLFood101', data_root=str(folder), **options))


def refused(folder: Path, text: str, call=build) -> None:
    with pytest.raises(UserError, match=text) as error:
        call(folder)
    said = str(error.value)
    assert '\n' not in said and 'https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/' in said
    assert said.endswith(f'put its images/ and meta/ in {folder}.')


def test_both_splits(folder):
    train, test = build(folder), build(folder, split='test')
    assert isinstance(train, PETLFood101) and train.num_classes == 101 == len(train.metainfo['classes'])
    assert train.get_gt_labels().tolist() == [0] * 4 + [train.CLASSES.index('creme_brulee')] * 4 + [100] * 4
    paths = [test.get_data_info(i)['img_path'] for i in (0, 5)]
    assert paths == [f'{folder}/images/apple_pie/4.jpg', f'{folder}/images/waffles/5.jpg']


def test_a_missing_folder(tmp_path):
    refused(tmp_path / 'none', r'meta/train\.txt does not exist')


@pytest.mark.parametrize(
    'text', ['', 'apple_pie\n', 'apple_pie/1\n\n', 'sushi_roll/1\n', 'a/b/c\n', b'\xff\xfe\x00'], ids=repr
)
def test_a_damaged_list(folder, text):
    put(folder / 'meta/train.txt', text)
    refused(folder, r'meta/train\.txt is (damaged|empty)')


def test_missing_images(folder):
    shutil.rmtree(folder / 'images/waffles')
    (folder / 'images/creme_brulee/3.jpg').unlink()
    refused(folder, r'5 of the 12 images of .* do not exist, such as .*creme_brulee/3\.jpg')
    shutil.rmtree(folder / 'images')
    refused(folder, r'12 of the 12 images of .* do not exist, such as .*apple_pie/0\.jpg')


@pytest.mark.parametrize('share', [0.0, 0.5, 0.9])
def test_a_truncated_image(folder, share):
    path = folder / 'images/waffles/4.jpg'
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    data = build(folder, split='test', pipeline=LOAD)
    assert data[5]['inputs'].shape == (3, 40, 30)
    refused(folder, r'waffles/4\.jpg cannot be decoded', lambda _: data[4])
