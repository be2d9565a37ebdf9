"""Videos from a list: names, labels, the held-out part and repeated classes."""

from __future__ import annotations

import pytest
from mmengine.dataset import ClassBalancedDataset

from vpetl_mm import UserError
from vpetl_mm.datasets.petl_video_dataset import PETLVideoDataset


def dataset(tmp_path, text: str, **options) -> PETLVideoDataset:
    (tmp_path / 'list.txt').write_text(text)
    made = PETLVideoDataset(str(tmp_path / 'list.txt'), pipeline=[], data_prefix=dict(video='videos'), **options)
    made.full_init()
    return made


def names(data) -> list[str]:
    return [data.get_data_info(i)['filename'] for i in range(len(data))]


def test_names_and_labels(tmp_path):
    data = dataset(tmp_path, 'a b/c d.mp4 3\nüöä/短.webm 0\n\n', num_classes=4)
    assert names(data) == ['videos/a b/c d.mp4', 'videos/üöä/短.webm']
    assert [data.get_data_info(i)['label'] for i in range(2)] == [3, 0]
    with pytest.raises(UserError, match='label 3 is outside the classes 0 to 2'):
        dataset(tmp_path, 'a b/c d.mp4 3\n', num_classes=3)


def test_a_rare_class_is_repeated_by_class_balanced_dataset(tmp_path):
    own = dataset(tmp_path, 'a.mp4 0\nb.mp4 0\nc.mp4 0\nd e.mp4 1\n', num_classes=2)
    # class 1 is a quarter: the square root of 0.5 / 0.25, rounded up, is 2
    balanced = ClassBalancedDataset(own, oversample_thr=0.5)
    assert names(balanced) == [f'videos/{n}.mp4' for n in ('a', 'b', 'c', 'd e', 'd e')]


def test_an_unreadable_video_is_named_in_a_printable_line(tmp_path):
    own = dataset(tmp_path, 'a\x1b[2J.mp4 0\n', test_mode=True)
    own.pipeline = lambda _: (_ for _ in ()).throw(OSError('b\x07'))
    with pytest.raises(UserError) as error:
        own[0]
    assert r'from videos/a\x1b[2J.mp4 (OSError: b\x07) on' in str(error.value)
