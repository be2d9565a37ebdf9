"""Annotation files: what is accepted, what is refused with which sentence, and the held-out part."""

from __future__ import annotations

import pytest
from mmengine.dataset import ClassBalancedDataset

from vpetl_mm import UserError
from vpetl_mm.datasets.petl_video_dataset import PETLVideoDataset, _told


def dataset(tmp_path, text: str, **options) -> PETLVideoDataset:
    (tmp_path / 'list.txt').write_text(text)
    made = PETLVideoDataset(str(tmp_path / 'list.txt'), pipeline=[], data_prefix=dict(video='videos'), **options)
    made.full_init()
    return made


def test_paths_may_hold_spaces_and_other_alphabets(tmp_path):
    data = dataset(tmp_path, 'a b/c d.mp4 3\nüöä/短.webm 0\n\n', num_classes=4)
    assert [(d['filename'], d['label']) for d in (data.get_data_info(0), data.get_data_info(1))] == [
        ('videos/a b/c d.mp4', 3),
        ('videos/üöä/短.webm', 0),
    ]


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', 'is empty'),
        ('\n \n', 'is empty'),
        ('a.mp4 0\nb.mp4\n', 'line 2 has no label'),
        ('a.mp4 walk\n', 'line 1 has no label'),
        ('a.mp4\0 0\n', 'line 1 has no label'),
        ('a.mp4 0\nb.mp4 4\n', 'line 2: label 4 is outside the classes 0 to 3'),
        ('a.mp4 -1\n', 'line 1: label -1 is outside'),
    ],
)
def test_wrong_lists_are_refused(tmp_path, text, said):
    with pytest.raises(UserError, match=said) as error:
        dataset(tmp_path, text, num_classes=4)
    assert 'list.txt' in str(error.value)


def test_a_rare_class_is_repeated_by_class_balanced_dataset(tmp_path):
    own = dataset(tmp_path, 'a.mp4 0\nb.mp4 0\nc.mp4 0\nd e.mp4 1\n', num_classes=2)
    balanced = ClassBalancedDataset(own, oversample_thr=0.5)
    # class 1 is a quarter: the square root of 0.5 / 0.25, rounded up, is 2
    names = [balanced.get_data_info(i)['filename'] for i in range(len(balanced))]
    assert names == [f'videos/{n}.mp4' for n in ('a', 'b', 'c', 'd e', 'd e')]


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'none\.txt does not exist'):
        PETLVideoDataset(str(tmp_path / 'none.txt'), pipeline=[])


@pytest.mark.parametrize('share', [0.05, 0.3])
def test_the_held_out_part_and_the_rest_are_the_whole(tmp_path, share):
    text = ''.join(f'{i}.mp4 {i % 4}\n' for i in range(40))

    def names(**options) -> list[str]:
        data = dataset(tmp_path, text, **options)
        return [data.get_data_info(i)['filename'] for i in range(len(data))]

    rest, out = names(holdout=share), names(holdout=share, held_out=True)
    assert len(out) == round(40 * share) and not set(rest) & set(out)
    assert sorted(rest + out) == sorted(names())
    assert out == names(holdout=share, held_out=True), 'the same each time'
    assert out != names(holdout=share, held_out=True, holdout_seed=1)


def test_a_holdout_of_everything_is_refused(tmp_path):
    with pytest.raises(UserError, match='holdout'):
        dataset(tmp_path, 'a.mp4 0\n', holdout=1.0)
    with pytest.raises(UserError, match='leaves nothing'):
        dataset(tmp_path, 'a.mp4 0\n', holdout=0.9)


def test_a_file_is_told_of_in_a_printable_line():
    assert _told('a\x1b[2J\udcff.mp4', OSError('b\x07')) == r'a\x1b[2J\udcff.mp4 (OSError: b\x07)'
