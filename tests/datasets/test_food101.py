"""Food-101 in its official layout, and what is said of missing or damaged parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from vpetl_mm import UserError
from vpetl_mm.datasets.food101 import PETLFood101

CLASSES = ('apple_pie', 'creme_brulee', 'waffles')  # the first, one in the middle, the last
LOAD = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='PackInputs')]


@pytest.fixture
def folder(tmp_path):
    """Three classes with four training and two test images each."""
    lists = dict(train=[], test=[])
    for name in CLASSES:
        (tmp_path / 'images' / name).mkdir(parents=True)
        for i in range(6):
            noise = np.random.default_rng(i).integers(0, 256, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / f'images/{name}/{i}.jpg')
            lists['train' if i < 4 else 'test'].append(f'{name}/{i}')
    (tmp_path / 'meta').mkdir()
    for split, lines in lists.items():
        (tmp_path / f'meta/{split}.txt').write_text('\n'.join(lines) + '\n')
    return tmp_path


def build(folder: Path, **options) -> PETLFood101:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(dict(type='PETLFood101', data_root=str(folder), **options))


def refused(folder: Path, text: str, **options) -> None:
    with pytest.raises(UserError, match=text) as error:
        build(folder, **options)
    told_how(str(error.value), folder)


def told_how(said: str, folder: Path) -> None:
    assert '\n' not in said and 'https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/' in said
    assert said.endswith(f'put its images/ and meta/ in {folder}.')


def test_both_splits(folder):
    train, test = build(folder), build(folder, split='test')
    assert isinstance(train, PETLFood101) and train.num_classes == 101 == len(train.metainfo['classes'])
    assert train.get_gt_labels().tolist() == [0] * 4 + [train.CLASSES.index('creme_brulee')] * 4 + [100] * 4
    assert [test.get_data_info(i)['img_path'] for i in (0, 5)] == [
        f'{folder}/images/apple_pie/4.jpg',
        f'{folder}/images/waffles/5.jpg',
    ]


def test_a_held_out_part(folder):
    rest, out = (build(folder, holdout=0.25, held_out=h) for h in (False, True))
    paths = [{d.get_data_info(i)['img_path'] for i in range(len(d))} for d in (rest, out)]
    assert [len(p) for p in paths] == [9, 3] and len(paths[0] | paths[1]) == 12


def test_a_missing_folder(tmp_path):
    refused(tmp_path / 'none', r'meta/train\.txt does not exist')


@pytest.mark.parametrize('text', ['', 'apple_pie\n', 'apple_pie/1\n\n', 'sushi_roll/1\n', 'a/b/c\n'])
def test_a_damaged_list(folder, text):
    (folder / 'meta/train.txt').write_text(text)
    refused(folder, r'meta/train\.txt is (damaged|empty)')


def test_a_list_that_is_no_text(folder):
    (folder / 'meta/train.txt').write_bytes(b'\xff\xfe\x00')
    refused(folder, r'meta/train\.txt is damaged')


def test_no_images(folder):
    shutil.rmtree(folder / 'images')
    refused(folder, r'12 of the 12 images of .* do not exist, .*apple_pie/0\.jpg being the first')


def test_images_of_a_half_unpacked_archive(folder):
    shutil.rmtree(folder / 'images/waffles')
    (folder / 'images/creme_brulee/3.jpg').unlink()
    refused(folder, r'5 of the 12 images of .* do not exist, .*creme_brulee/3\.jpg being the first')


@pytest.mark.parametrize('share', [0.0, 0.5, 0.9])
def test_a_truncated_image(folder, share):
    path = folder / 'images/waffles/4.jpg'
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    data = build(folder, split='test', pipeline=LOAD)
    assert data[5]['inputs'].shape == (3, 40, 30)
    with pytest.raises(UserError, match=r'waffles/4\.jpg cannot be decoded') as error:
        data[4]
    told_how(str(error.value), folder)


def test_an_unknown_split(folder):
    with pytest.raises(UserError, match=r"Unknown split of Food-101 'val'; valid: test, train\."):
        build(folder, split='val')
