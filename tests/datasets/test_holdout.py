"""The hold-out: the parts, the draw that published runs depend on, and both host libraries' data sets."""

from __future__ import annotations

import pytest
from mmaction.datasets import VideoDataset
from mmengine.dataset import BaseDataset
from mmpretrain.datasets import CustomDataset

from vpetl_mm import UserError
from vpetl_mm.datasets.cifar100 import PETLCIFAR100
from vpetl_mm.datasets.food101 import PETLFood101
from vpetl_mm.datasets.holdout import Holdout
from vpetl_mm.datasets.image_arrays import ImageArrays
from vpetl_mm.datasets.svhn import SVHN
from vpetl_mm.datasets.vtab1k import VTAB1k


class Numbers(Holdout, BaseDataset):
    """The numbers from 0; it defines ``load_data_list`` itself."""

    def __init__(self, count: int = 40, serialize_data: bool = False, **kwargs) -> None:
        self.count = count
        super().__init__(serialize_data=serialize_data, **kwargs)

    def load_data_list(self) -> list[dict]:
        return [dict(number=n) for n in range(self.count)]


class Videos(Holdout, VideoDataset):
    """mmaction2's, as it is."""


class Images(Holdout, CustomDataset):
    """mmpretrain's, as it is."""


def numbers(**options) -> list[int]:
    data = Numbers(**options)
    return [data[i]['number'] for i in range(len(data))]


@pytest.mark.parametrize(
    ('share', 'seed', 'expected'),
    [(0.1, 0, [4, 11, 24, 27]), (0.1, 7, [0, 4, 20, 28]), (0.05, 0, [11, 27]), (0.01, 3, [23])],
)
def test_the_draw_stays_what_it_was(share, seed, expected):
    # as drawn by PETLVideoDataset at commit 03822ae: earlier runs were validated on these
    assert numbers(holdout=share, held_out=True, holdout_seed=seed) == expected


@pytest.mark.parametrize('share', [0.01, 0.25, 0.9])
@pytest.mark.parametrize('serialize', [True, False])
def test_the_parts_are_disjoint_and_the_whole_in_order(share, serialize):
    rest, out = (numbers(holdout=share, held_out=h, serialize_data=serialize) for h in (False, True))
    assert len(out) == max(1, round(40 * share)) and not set(rest) & set(out)
    assert rest == sorted(rest) and out == sorted(out) and sorted(rest + out) == list(range(40))


def test_no_share_is_the_whole_list():
    assert numbers() == numbers(holdout_seed=5) == list(range(40))


def test_indices_count_within_the_part():
    out = numbers(holdout=0.5, held_out=True)
    assert numbers(holdout=0.5, held_out=True, indices=3) == out[:3]


@pytest.mark.parametrize('share', [-0.1, 1.0, 1.5, float('nan')])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(UserError, match='holdout must be at least 0 and below 1'):
        Numbers(holdout=share)


def test_an_empty_part_is_refused_with_its_source():
    with pytest.raises(UserError, match=r'holdout=0\.5 leaves nothing of the 1 samples of some/folder'):
        Numbers(count=1, data_root='some/folder', holdout=0.5)


@pytest.mark.parametrize(
    ('kind', 'args', 'said'),
    [
        (PETLCIFAR100, (), "Unknown split of CIFAR-100 'tests'; valid: test, train"),
        (PETLFood101, (), "Unknown split of Food-101 'tests'; valid: test, train"),
        (ImageArrays, (), "Unknown split of an array file 'tests'; valid: test, train"),
        (SVHN, (), "Unknown split of SVHN 'tests'; valid: extra, test, train"),
        (VTAB1k, (4,), "Unknown split of VTAB-1k 'tests'; valid: test, train"),
    ],
)
def test_an_unknown_split_is_refused(kind, args, said):
    with pytest.raises(UserError, match=rf"{said}\. Did you mean 'test'\?"):
        kind('/nowhere', *args, split='tests')


def test_it_stands_before_mmaction2s_data_sets(tmp_path):
    (tmp_path / 'list.txt').write_text(''.join(f'{i}.mp4 0\n' for i in range(40)))
    data = Videos(str(tmp_path / 'list.txt'), [], holdout=0.1, held_out=True)
    assert [data.get_data_info(i)['filename'] for i in range(len(data))] == ['4.mp4', '11.mp4', '24.mp4', '27.mp4']


def test_it_stands_before_mmpretrains_data_sets(tmp_path):
    for label in 'ab':
        (tmp_path / label).mkdir()
        for i in range(20):
            (tmp_path / label / f'{i}.png').touch()
    rest, out = (Images(data_root=str(tmp_path), holdout=0.1, held_out=h) for h in (False, True))
    paths = [{d.get_data_info(i)['img_path'] for i in range(len(d))} for d in (rest, out)]
    assert [len(p) for p in paths] == [36, 4] and len(paths[0] | paths[1]) == 40
