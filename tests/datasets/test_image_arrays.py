"""Images and labels in one NumPy archive, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from building import REPO, build
from trees import REAL

from vpetl_mm import UserError
from vpetl_mm.config import load_config
from vpetl_mm.datasets.image_arrays import ImageArrays

SUBSET = REAL / 'cifar100/cifar100_subset.npz'


def arrays(**change) -> dict[str, np.ndarray]:
    """Image n of a split is all n (training) or all 100 + n (testing)."""
    train, test = (np.zeros((n, 4, 4, 3), np.uint8) + k + np.arange(n, dtype=np.uint8)[:, None, None, None]
                   for n, k in ((5, 0), (3, 100)))  # fmt: skip
    labels = dict(train_labels=np.array([0, 1, 1, 2, 0]), test_labels=np.array([2, 0, 1]))
    return dict(train_images=train, test_images=test, classes=np.array(['a', 'b', 'c']), **labels) | change


@pytest.fixture
def file(tmp_path):
    """Writes an archive and gives its path."""

    def write(**change) -> str:
        np.savez(tmp_path / 'images.npz', **arrays(**change))
        return str(tmp_path / 'images.npz')

    return write


@pytest.mark.parametrize(('split', 'first', 'labels'), [('train', 0, [0, 1, 1, 2, 0]), ('test', 100, [2, 0, 1])])
def test_images_and_labels(file, split, first, labels):
    data = ImageArrays(file(), split)
    assert data.get_gt_labels().tolist() == labels
    assert data.num_classes == 3 and data.metainfo['classes'] == ('a', 'b', 'c')
    for n in range(len(data)):
        assert data[n]['img'].shape == (4, 4, 3) and (data[n]['img'] == first + n).all()


def test_the_first_so_many_images_of_each_class(file):
    path = file(train_labels=np.array([0, 1, 1, 0, 2]))
    seen = [int(sample['img'].max()) for sample in ImageArrays(path, per_class=1)]
    assert seen == [0, 1, 4]
    with pytest.raises(UserError, match='class 2 has only 1 image'):
        ImageArrays(path, per_class=2)
    with pytest.raises(UserError, match='per_class must be a whole number of at least 1'):
        ImageArrays(path, per_class=0)


def test_a_part_is_held_out(file):
    parts = [ImageArrays(file(), holdout=0.4, held_out=out) for out in (False, True)]
    seen = [sorted(int(p[n]['img'].max()) for n in range(len(p))) for p in parts]
    assert sorted(seen[0] + seen[1]) == [0, 1, 2, 3, 4] and len(seen[1]) == 2


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(train_images=np.zeros((5, 4, 4), np.uint8)), 'should hold train_images'),
        (dict(train_images=np.zeros((5, 4, 4, 3))), 'float64'),
        (dict(train_labels=np.zeros(4, int)), r'\(4,\)'),
        (dict(train_labels=np.zeros(5)), 'float64'),
        (dict(train_labels=np.array([0, 1, 3, 0, 0])), 'the label 3, outside 0 to 2'),
        (dict(train_labels=np.array([0, -1, 1, 0, 0])), 'the label -1, outside 0 to 2'),
        (dict(train_images=np.zeros((5, 0, 4, 3), np.uint8)), 'should hold train_images'),
        (dict(classes=np.array(3)), r'should hold classes, the name of each, and has \(\)'),
        (dict(classes=np.array([object()], dtype=object)), 'damaged or not an array file'),  # a pickle, never read
    ],
)
def test_wrong_content(file, change, said):
    with pytest.raises(UserError, match=said):
        ImageArrays(file(**change))


def test_a_small_file_that_takes_much_memory(tmp_path):
    many = arrays(train_images=np.zeros((1_500_000, 4, 4, 3), np.uint8))
    np.savez_compressed(tmp_path / 'bomb.npz', **many)
    with pytest.raises(UserError, match='it would unpack to '):
        ImageArrays(str(tmp_path / 'bomb.npz'), 'test')


def test_wrong_files(tmp_path, file):
    with pytest.raises(UserError, match='does not exist'):
        ImageArrays(str(tmp_path / 'none.npz'))
    whole = Path(file()).read_bytes()
    for content in (b'', b'text', whole[: len(whole) // 2]):
        (tmp_path / 'broken.npz').write_bytes(content)
        with pytest.raises(UserError, match='damaged or not an array file'):
            ImageArrays(str(tmp_path / 'broken.npz'))


@pytest.mark.skipif(not SUBSET.exists(), reason='the real images are not at hand')
def test_the_real_subset_through_the_configs_pipelines():
    cfg = load_config(REPO / 'configs/vits14_fc_cifar100n50_dinov2.py')
    for loader, held_out, count in (('train', 0.2, 4000), ('val', 0.2, 1000), ('test', 0.0, 2000)):
        dataset = cfg[f'{loader}_dataloader'].dataset
        dataset.update(ann_file=str(SUBSET), holdout=held_out)
        data = build(dataset)
        assert len(data) == count and data.num_classes == 100
        assert data[0]['inputs'].shape == (3, 112, 112)
