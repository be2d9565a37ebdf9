"""CIFAR-100 in its official layout, and the errors of missing or damaged files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR100
from trees import REAL, cifar_files, make_official, put_all

from vpetl_mm import UserError
from vpetl_mm.datasets.cifar100 import PETLCIFAR100

SUBSET = REAL / 'cifar100/cifar100_subset.npz'


def write(folder: Path, monkeypatch, **splits) -> Path:
    files = cifar_files(**splits)
    make_official(monkeypatch, files)
    return put_all(folder, files)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return write(tmp_path, monkeypatch, train=40, test=10)


def test_both_splits(folder):
    train, test = PETLCIFAR100(str(folder)), PETLCIFAR100(str(folder), 'test')
    assert train.num_classes == test.num_classes == 100 == len(train.metainfo['classes'])
    assert train.get_gt_labels().tolist() == [*range(40)] and test.get_gt_labels().tolist() == [*range(10)]
    assert test[3]['img'].shape == (32, 32, 3) and test[3]['img'].dtype == np.uint8


@pytest.mark.skipif(not SUBSET.exists(), reason='the real images are not at hand')
def test_real_images_come_back_as_they_are(tmp_path, monkeypatch):
    real = np.load(SUBSET)
    images, labels = real['test_images'][:60], real['test_labels'][:60]
    data = PETLCIFAR100(str(write(tmp_path, monkeypatch, train=1, test=(images, labels))), 'test')
    assert all(np.array_equal(data[i]['img'], images[i]) for i in range(60))
    assert [data.metainfo['classes'][data[i]['gt_label']] for i in range(60)] == [real['classes'][v] for v in labels]


def test_the_md5_sums_are_the_official_ones():
    assert PETLCIFAR100.train_list == CIFAR100.train_list and PETLCIFAR100.test_list == CIFAR100.test_list


def no_network(*_, **__):
    raise AssertionError('tried to download')


class Evil:
    """Raises the moment it is unpickled."""

    def __reduce__(self):
        return no_network, ()


@pytest.mark.parametrize('name', ['train', 'test'])
def test_a_missing_or_foreign_file_is_never_downloaded_or_read(folder, monkeypatch, name):
    monkeypatch.setattr('mmpretrain.datasets.cifar.download_and_extract_archive', no_network)
    path = folder / 'cifar-100-python' / name
    whole = path.read_bytes()
    for content in (whole[:-1], pickle.dumps(Evil()), None):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(UserError) as error:
            PETLCIFAR100(str(folder))
        problem = 'does not exist' if content is None else 'is damaged or not the official file (its md5 differs)'
        how = f'unpack cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html in {folder}.'
        assert str(error.value) == f'{path} {problem}; {how}'


def test_an_empty_data_root_is_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(PETLCIFAR100('', 'test')) == 10
