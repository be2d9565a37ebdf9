"""VTAB-1k: a folder for each task, as the usual tree has them."""

from __future__ import annotations

import json

import pytest
from building import build
from PIL import Image
from trees import REPO, call, lines, put, snapshot

from vpetl_mm.config import load_config

COUNTS = dict(train800=800, val200=200, test=711)  # kitti's


def task(src, name, classes, counts, suffix='.jpg', content=None):
    """A task's folder: images/<list>/000000.jpg, ..., whose labels take turns."""
    for part, count in counts.items():
        rows = [(f'images/{part}/{i:06d}{suffix}', i % classes) for i in range(count)]
        for path, _ in rows:
            put(src / name / path, content or path)
        put(src / name / f'{part}.txt', ''.join(f'{path} {label}\n' for path, label in rows))
    both = (src / name / 'train800.txt').read_text() + (src / name / 'val200.txt').read_text()
    put(src / name / 'train800val200.txt', both)
    return src


def small(src, **counts):
    task(src, 'clevr_count', 8, dict(dict(train800=8, val200=4, test=5), **counts))
    return task(src, 'oxford_iiit_pet', 37, dict(train800=40, val200=3, test=4))


def test_an_official_task_is_prepared_without_a_word_and_read_back(here, tmp_path, capsys):
    src = task(tmp_path / 'src', 'kitti', 4, COUNTS)
    before = snapshot(src)
    assert call('vtab1k', '--src', src) == 0
    said = capsys.readouterr()
    assert [line for line in said.err.splitlines() if 'kitti' in line.partition('are missing from')[0]] == []
    assert 'warning: 18 of the 19 tasks are missing' in said.err and 'check vtab1k' in said.out
    out = here / 'data/vtab1k/kitti'
    assert {p.name for p in out.iterdir()} == {
        *('train800.txt', 'val200.txt', 'test.txt', 'classes.txt', 'manifest.csv', 'dataset.json', 'images')
    }
    for name in COUNTS:
        assert (out / f'{name}.txt').read_text() == (src / f'kitti/{name}.txt').read_text()
    assert (out / 'images').readlink() == src / 'kitti/images' and snapshot(src) == before
    rows = lines(out / 'manifest.csv')
    assert len(rows) == 1 + 1711 and rows[1] == 'images/train800/000000.jpg,26,'
    about = json.loads((out / 'dataset.json').read_text())
    assert about['counts'] == COUNTS == about['official'] | COUNTS and about['missing'] == 0
    data = dict(type='VTAB1k', data_root=str(out), num_classes=4)
    assert len(build(data)) == 1000 and len(build(dict(data, split='test'))) == 711


def test_the_command_that_is_shown_is_there(here, tmp_path, capsys):
    assert call('vtab1k', '--src', small(tmp_path / 'src')) == 0
    (shown,) = (line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.startswith('Train:'))
    assert load_config(REPO / shown).model.head.num_classes == 37


def test_other_counts_and_missing_files_are_told(here, tmp_path, capsys):
    src = small(tmp_path / 'src')
    (src / 'clevr_count/images/test/000002.jpg').unlink()
    assert call('vtab1k', '--src', src) == 0
    error = capsys.readouterr().err
    assert 'vtab1k/clevr_count has 8 samples in the train list; officially it has 800.' in error
    assert 'vtab1k/oxford_iiit_pet has 4 samples in the test list; officially it has 3,669.' in error
    assert '1 of 17 listed files are missing' in error
    assert lines(here / 'data/vtab1k/clevr_count/missing.txt') == ['images/test/000002.jpg']


@pytest.mark.parametrize(
    ('list_', 'line', 'said'),
    [
        ('val200', 'images/val200/000000.jpg 8', "line 1: the label '8' is outside the classes 0 to 7"),
        ('test', 'images/test/000000.jpg -1', "the label '-1' is outside"),
        ('test', 'images/test/000000.jpg cat', "the label 'cat' is outside"),
        ('test', 'images/train800/000003.jpg 3', 'is in both train and test'),
        ('train800', '../elsewhere/000000.jpg 1', 'should be a path in images/'),
        ('train800', 'images/../../passwd.jpg 1', 'should be a path in images/'),
        ('train800', '/images/a.jpg 1', 'should be a path in images/'),
        ('train800', '', 'lists nothing'),
        ('train800', 'images/a.jpg 1\nimages/a.jpg 2', 'listed with two labels, 1 and 2'),
    ],
)
def test_wrong_lists_are_refused_before_any_task_is_prepared(refused, tmp_path, list_, line, said):
    src = small(tmp_path / 'src')
    (src / f'clevr_count/{list_}.txt').write_text(f'{line}\n')  # the task that comes second
    task(src, 'cifar', 100, dict(train800=100, val200=2, test=2))
    assert said in refused('vtab1k', '--src', src)


def test_wrong_sources(refused, tmp_path):
    src = small(tmp_path / 'src')
    assert 'has none of the 19 tasks' in refused('vtab1k', '--src', src / 'clevr_count')
    assert 'does not exist' in refused('vtab1k', '--src', tmp_path / 'nowhere')
    assert 'should be a folder' in refused('vtab1k', '--src', put(tmp_path / 'file'))
    assert '--reencode is for videos' in refused('vtab1k', '--src', src, '--reencode')
    assert '--classes is for data of your own' in refused('vtab1k', '--src', src, '--classes', src)
    assert "did you mean 'vtab1k'" in refused('vtab-1k', '--src', src)
    (src / 'clevr_count/val200.txt').unlink()
    assert 'clevr_count/val200.txt does not exist' in refused('vtab1k', '--src', src)


def test_again_with_changed_lists_and_a_check(here, tmp_path, capsys):
    src, counts = tmp_path / 'src', dict(train800=3, val200=1, test=1)
    for name in ('dmlab', 'kitti'):
        task(src, name, 2, counts, '.png')
        for i, file in enumerate(sorted((src / name).rglob('*.png'))):
            Image.new('RGB', (5, 4), (i, 8, len(name))).save(file)
    assert call('vtab1k', '--src', src) == 0
    assert call('check', 'vtab1k', '--workers', 1) == 2, 'the counts are not the official ones'
    out = here / 'data/vtab1k'
    report = json.loads((out / 'kitti/check.json').read_text())
    kinds = {kind for kind, found in report['problems'].items() if found}
    assert kinds == {'count', 'empty_class'} and len(lines(out / 'kitti/train800_clean.txt')) == 3
    (src / 'kitti/images/train800/000001.png').write_bytes(b'no image')
    capsys.readouterr()
    assert call('check', 'vtab1k', '--workers', 1) == 2
    report = json.loads((out / 'kitti/check.json').read_text())
    assert [p['path'] for p in report['problems']['unreadable']] == ['images/train800/000001.png']
    assert len(lines(out / 'kitti/train800_clean.txt')) == 2 and len(lines(out / 'dmlab/train800_clean.txt')) == 3
    put(src / 'kitti/train800.txt', 'images/train800/000000.png 1\n')
    assert call('vtab1k', '--src', src) == 0
    assert lines(out / 'kitti/train800.txt') == ['images/train800/000000.png 1']
    assert not (out / 'kitti/check.json').exists() and not (out / 'kitti/train800_clean.txt').exists()
    assert (out / 'dmlab/check.json').exists(), 'the lists of dmlab are the same'


def test_what_others_made_is_not_replaced(here, tmp_path, capsys):
    mine = put(here / 'data/vtab1k/clevr_count/val200.txt', 'mine')
    assert call('vtab1k', '--src', small(tmp_path / 'src')) == 2
    assert mine.read_text() == 'mine' and 'was not made by this command' in capsys.readouterr().err
