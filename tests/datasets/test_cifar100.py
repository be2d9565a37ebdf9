"""CIFAR-100 in its official layout, and what is said of missing or damaged files."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from torchvision.datasets import CIFAR100

from vpetl_mm import UserError
from vpetl_mm.datasets.cifar100 import PETLCIFAR100

SUBSET = Path(__file__).parents[3] / 'shared/data/cifar100/cifar100_subset.npz'


def write_archive(folder: Path, **splits: tuple[np.ndarray, list[int]]) -> dict[str, list]:
    """Write images [N, 32, 32, 3] and labels as the official pickles; the lists of names and md5 sums."""
    (folder / 'cifar-100-python').mkdir(exist_ok=True)
    lists = {}
    for split, (images, labels) in splits.items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)  # a row: all red, all green, all blue
        content = pickle.dumps(dict(data=rows, fine_labels=list(labels), coarse_labels=[0] * len(labels)))
        (folder / 'cifar-100-python' / split).write_bytes(content)
        lists[f'{split}_list'] = [[split, hashlib.md5(content).hexdigest()]]
    return lists


def patch(monkeypatch, folder: Path, **splits: tuple[np.ndarray, list[int]]) -> Path:
    for name, value in write_archive(folder, **splits).items():
        monkeypatch.setattr(PETLCIFAR100, name, value)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (40, 10))
    return patch(monkeypatch, tmp_path, train=(train, [*range(40)]), test=(test, [*range(90, 100)]))


def test_both_splits(folder):
    train, test = PETLCIFAR100(str(folder)), PETLCIFAR100(str(folder), 'test')
    assert train.num_classes == test.num_classes == 100 == len(train.metainfo['classes'])
    assert train.get_gt_labels().tolist() == [*range(40)] and test.get_gt_labels().tolist() == [*range(90, 100)]
    assert test[3]['img'].shape == (32, 32, 3) and test[3]['img'].dtype == np.uint8


@pytest.mark.skipif(not SUBSET.exists(), reason='the real images are not at hand')
def test_real_images_come_back_as_they_are(tmp_path, monkeypatch):
    real = np.load(SUBSET)
    images, labels = real['test_images'][:60], [int(v) for v in real['test_labels'][:60]]
    patch(monkeypatch, tmp_path, train=(images[:1], labels[:1]), test=(images, labels))
    data = PETLCIFAR100(str(tmp_path), 'test')
    assert all(np.array_equal(data[i]['img'], images[i]) for i in range(60))
    assert [data.metainfo['classes'][data[i]['gt_label']] for i in range(60)] == [real['classes'][v] for v in labels]


def test_a_held_out_part(folder):
    rest, out = (PETLCIFAR100(str(folder), holdout=0.1, held_out=h) for h in (False, True))
    assert out.get_gt_labels().tolist() == [4, 11, 24, 27]
    assert sorted([*rest.get_gt_labels(), *out.get_gt_labels()]) == [*range(40)]


def test_it_is_registered_for_mmpretrains_scope(folder):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = DATASETS.build(dict(type='PETLCIFAR100', data_root=str(folder), split='test'))
    assert isinstance(data, PETLCIFAR100) and len(data) == 10


def test_the_md5_sums_are_the_official_ones():
    assert PETLCIFAR100.train_list == CIFAR100.train_list and PETLCIFAR100.test_list == CIFAR100.test_list


def no_network(*_, **__):
    raise AssertionError('tried to download')


def refused(folder: Path, text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        PETLCIFAR100(str(folder))
    said = str(error.value)
    assert '\n' not in said and 'unpack cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/' in said
    assert said.endswith(f' in {folder}.')


@pytest.mark.parametrize('name', ['train', 'test'])
def test_a_missing_file_is_never_downloaded(folder, monkeypatch, name):
    monkeypatch.setattr('mmpretrain.datasets.cifar.download_and_extract_archive', no_network)
    (folder / 'cifar-100-python' / name).unlink()
    refused(folder, f'cifar-100-python/{name} does not exist')


def test_a_missing_folder(tmp_path):
    refused(tmp_path / 'none', 'cifar-100-python/train does not exist')


@pytest.mark.parametrize('name', ['train', 'test'])
def test_a_truncated_file(folder, name):
    path = folder / 'cifar-100-python' / name
    path.write_bytes(path.read_bytes()[:-1])
    refused(folder, f'cifar-100-python/{name} is damaged or not the official file')


class Evil:
    """Raises the moment it is unpickled."""

    def __reduce__(self):
        return no_network, ()


def test_a_foreign_pickle_is_refused_before_it_is_read(folder):
    (folder / 'cifar-100-python/train').write_bytes(pickle.dumps(Evil()))
    refused(folder, 'cifar-100-python/train is damaged or not the official file')


def test_an_unknown_split(folder):
    with pytest.raises(UserError, match=r"Unknown split of CIFAR-100 'val'; valid: test, train\."):
        PETLCIFAR100(str(folder), split='val')


def test_an_empty_data_root_is_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(PETLCIFAR100('', 'test')) == 10
