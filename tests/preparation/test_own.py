"""Your own data: class folders, and lists like those of Kinetics."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter

import pytest
from building import build
from mmengine.config import Config
from trees import REAL, REPO, call, lines, put

from vpetl_mm.datasets.petl_video_dataset import PETLVideoDataset

FIGHTS = REAL / 'fight_surv'


def folders(src, count=10, suffix='.mp4', classes=('run fast', 'walk')):
    for name in classes:
        for i in range(count):
            put(src / name / f'{name[0]}{i}{suffix}')
    return src


def labels(path):
    return Counter(line.split()[-1] for line in lines(path))


def test_a_folder_per_class(here, tmp_path):
    src = folders(tmp_path / 'src')
    put(src / 'walk/deeper/w10.mkv')
    put(src / 'walk/Thumbs.db')
    put(src / '.hidden/x.mp4')
    assert call('mine', '--src', src, '--val', 0.25, '--test', 0.2) == 0
    out = here / 'data/mine'
    assert lines(out / 'classes.txt') == ['run fast', 'walk'] and (out / 'videos').readlink() == src
    whole, train, val, test = (lines(out / f'{n}.txt') for n in ('trainval', 'train', 'val', 'test'))
    assert sorted(train + val) == sorted(whole) and len({*whole, *test}) == len(whole) + len(test) == 21
    assert not {*train} & {*val} and {'run fast/r0.mp4 0', 'walk/deeper/w10.mkv 1'} <= {*whole, *test}
    # the share of each class, rounded, of 10 and 11, then of 8 and 9
    assert labels(out / 'test.txt') == {'0': 2, '1': 2} and labels(out / 'val.txt') == {'0': 2, '1': 2}
    numbers = [sorted(re.findall(rf'{name[0]}(\d+)\.', '\n'.join(test))) for name in ('run', 'walk')]
    assert numbers[0] != numbers[1], 'every class should have a draw of its own'
    assert call('mine', '--src', src, '--val', 0.25, '--test', 0.2, '--seed', 1) == 0
    assert lines(out / 'test.txt') != test


def test_every_file_of_a_class_is_listed_or_told(here, tmp_path, capsys):
    src = folders(tmp_path / 'src', count=4)
    for name in ('a.MTS', 'b.vob', 'c.asf', 'd.m2ts', 'e.3gp', 'f.mxf'):
        put(src / 'walk' / name)
    for name in ('x', 'y', 'z.unknown', '.hidden.mp4', 'esc\x1b.tmp'):
        put(src / 'walk' / name)
    put(src / 'top.mp4')
    for i in range(3):
        put(tmp_path / f'disk/more/m{i}.mp4')
    for link, target in (
        ('walk/more', 'disk'),
        ('walk/loop', 'src'),
        ('jump', 'disk'),
        ('walk/more/more/back', 'disk'),
    ):
        (src / link).symlink_to(tmp_path / target)
    assert call('mine', '--src', src) == 0
    out = here / 'data/mine'
    listed = {line.rpartition(' ')[0] for name in ('trainval', 'test') for line in lines(out / f'{name}.txt')}
    assert {f'walk/{name}' for name in ('a.MTS', 'b.vob', 'c.asf', 'd.m2ts', 'e.3gp', 'f.mxf')} < listed
    assert {f'{link}/more/m{i}.mp4' for link in ('walk/more', 'jump') for i in range(3)} < listed
    assert len(listed) == 8 + 6 + 6 and not (out / 'missing.txt').exists()
    said = [line for line in capsys.readouterr().err.splitlines() if 'left out' in line]
    assert len(said) == 1 and '9 entries of' in said[0] and r'1 .tmp (such as walk/esc\x1b.tmp)' in said[0]
    for told in (
        '3 folders (such as jump/more/back)',
        '2 files without a suffix (such as walk/x)',
        '1 hidden (such as',
    ):
        assert told in said[0]
    assert '1 .unknown (such as walk/z.unknown)' in said[0] and '1 .mp4 (such as top.mp4)' in said[0]


@pytest.mark.parametrize('suffix', ['.gif', '.avif', '.jfif', '.GIF'])
def test_images_of_newer_and_older_kinds_are_listed(here, tmp_path, suffix):
    assert call('mine', '--src', folders(tmp_path / 'src', 4, suffix)) == 0
    assert len(lines(here / 'data/mine/trainval.txt') + lines(here / 'data/mine/test.txt')) == 8


def test_what_lies_beside_train_and_test_is_told(here, tmp_path, capsys):
    for part in ('train', 'test', 'unlabelled'):
        folders(tmp_path / 'src' / part, 3)
    assert call('mine', '--src', tmp_path / 'src') == 0
    assert '1 folders (such as unlabelled)' in capsys.readouterr().err


@pytest.mark.skipif(not FIGHTS.exists(), reason='the real clips are not at hand')
def test_real_clips_are_read_back(here):
    assert call('fights', '--src', FIGHTS, '--sha256') == 0
    out = here / 'data/fights'
    data = PETLVideoDataset(
        str(out / 'val.txt'),
        [dict(type='mmaction.DecordInit')],
        data_prefix=dict(video=str(out / 'videos')),
        num_classes=2,
    )
    assert len(data) == 4 and all(data.prepare_data(i)['total_frames'] > 10 for i in range(4))
    assert all((out / 'videos' / line.rpartition(' ')[0]).is_file() for line in lines(out / 'trainval.txt'))
    rows = [line.split(',') for line in lines(out / 'manifest.csv')[1:]]
    assert len(rows) == 60 and all(int(size) and len(digest) == 64 for _, size, digest in rows)


def test_train_val_and_test_folders_are_the_lists(here, tmp_path):
    for part, count in (('train', 5), ('val', 2), ('test', 3)):
        folders(tmp_path / 'src' / part, count, '.JPG')
    assert call('mine', '--src', tmp_path / 'src') == 0
    out = here / 'data/mine'
    assert lines(out / 'test.txt')[0] == 'test/run fast/r0.JPG 0' and (out / 'images').is_symlink()
    assert [len(lines(out / f'{n}.txt')) for n in ('trainval', 'train', 'val', 'test')] == [14, 10, 4, 6]
    assert json.loads((out / 'dataset.json').read_text())['val'] == {'rule': 'the lists of the source'}


LISTS = {
    'spaces': 'a b.mp4 0\nc.mp4 2\nd,e.mp4 1\n',
    'tabs': 'a b.mp4\t0\nc.mp4\t2\nd,e.mp4\t1\n',
    'commas': 'a b.mp4,0\nc.mp4, 2\n"d,e.mp4",1\n',
    'header': 'id,Path,Label\n1,a b.mp4,0\n2,c.mp4,2\n3,"d,e.mp4",1\n',
    'mark': '\ufeffpath,label\r\na b.mp4,0\r\n\r\nc.mp4,2\r\n"d,e.mp4",1\r\n',
}


@pytest.mark.parametrize('text', LISTS.values(), ids=LISTS)
@pytest.mark.parametrize('named', [False, True])
def test_lists_of_each_kind(here, tmp_path, text, named):
    names = ['stand', 'ride horse' if ',' in text.splitlines()[0] else 'ride', 'jump']
    if named:
        text = re.sub(r'(?m)(?<=[\t, ])(\d)(?=\r?$)', lambda m: names[int(m[1])], text)
    for name in ('a b', 'c', 'd,e', 't'):
        put(tmp_path / f'src/{name}.mp4')
    put(tmp_path / 'src/train.csv', text)
    put(tmp_path / 'src/test.csv', f't.mp4 {names[2] if named else 2}\n')
    assert call('mine', '--src', tmp_path / 'src', '--val', 0.5) == 2  # no class has two samples
    put(tmp_path / 'src/val.txt', f'c2.mp4 {names[2] if named else 2}\n')
    assert call('mine', '--src', tmp_path / 'src') == 0
    out = here / 'data/mine'
    classes = sorted(names) if named else ['0', '1', '2']
    assert lines(out / 'classes.txt') == classes and lines(out / 'missing.txt') == ['c2.mp4']
    of = [classes.index(n) for n in names] if named else [0, 1, 2]
    assert lines(out / 'train.txt') == [f'a b.mp4 {of[0]}', f'c.mp4 {of[2]}', f'd,e.mp4 {of[1]}']


def test_one_list_with_class_names_in_a_file(here, tmp_path):
    src = folders(tmp_path / 'src/videos', 4)
    rows = [f'{p.relative_to(src)},{p.parent.name}' for p in sorted(src.rglob('*.mp4'))]
    put(tmp_path / 'src/all.csv', '\n'.join(rows))
    put(tmp_path / 'names.txt', 'walk\nrun fast\nsit\n')
    assert call('mine', '--src', tmp_path / 'src/all.csv', '--classes', tmp_path / 'names.txt') == 0
    out = here / 'data/mine'
    assert lines(out / 'classes.txt') == ['walk', 'run fast', 'sit']
    assert (out / 'videos').readlink() == src and labels(out / 'trainval.txt') == {'0': 3, '1': 3}


def test_absolute_paths_are_made_relative(here, tmp_path):
    src = folders(tmp_path / 'src', 3)
    put(tmp_path / 'lists/train.txt', ''.join(f'{p} {int("walk" in str(p))}\n' for p in sorted(src.rglob('*.mp4'))))
    assert call('mine', '--src', tmp_path / 'lists') == 0
    assert (here / 'data/mine/videos').readlink() == src
    assert 'run fast/r0.mp4 0' in lines(here / 'data/mine/trainval.txt') + lines(here / 'data/mine/test.txt')


@pytest.mark.parametrize(('name', 'suffix'), [('clips', '.mp4'), ('pictures', '.png')])
def test_the_config_that_is_printed_builds(here, tmp_path, capsys, name, suffix):
    shutil.copytree(REPO / 'configs', here / 'configs')
    assert call(name, '--src', folders(tmp_path / 'src', suffix=suffix)) == 0
    text = capsys.readouterr().out.partition('lines in it:\n')[2]
    cfg = Config.fromfile(put(here / f'configs/mine/{name}.py', text))
    assert (cfg.model.get('cls_head') or cfg.model.head).num_classes == 2
    for loader, part in (('train_dataloader', 'train'), ('val_dataloader', 'val'), ('test_dataloader', 'test')):
        data = build(cfg[loader].dataset, cfg.default_scope)
        assert len(data) == len(lines(here / f'data/{name}/{part}.txt'))
        assert list(data.metainfo['classes']) == ['run fast', 'walk'] or data.metainfo['classes'].endswith(
            'classes.txt'
        )


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('a.mp4 0\nb.mp4\n', 'train.csv, line 2, should be "path label"'),
        ('a.mp4,0\nb.mp4,\n', 'train.csv, line 2, has no label'),
        ('a.mp4,0\nb.mp4,1,x\n', 'line 2, is more than "path,label"'),
        ('path,label\na.mp4\n', 'line 2, has no label'),
        ('\n', 'lists nothing'),
        ('a.mp4 0\n../b.mp4 1\n', 'line 2: ../b.mp4 lies outside of'),
        ('a.mp4 0\n/etc/b.mp4 1\n', 'lies outside of'),
        ('a.mp4 0\na.mp4 1\n', 'a.mp4 is listed with two labels, 0 and 1'),
        ('a.mp4 0\n./a.mp4 1\n', 'a.mp4 is listed with two labels, 0 and 1'),
        ('a.mp4 0\nb.heic 0\n', "line 2: '.heic' is not a known suffix of a video or an image"),
        ('a.mp4 walking\n', "line 1: 'walking' is not among the 2 classes. Did you mean 'walk'?"),
        ('a.mp4 2\n', "line 1: '2' is not among the 2 classes"),
        (b'a\xff.mp4 0\n', 'is not UTF-8 text'),
        ('a.mp4 ' + '9' * 5000, 'is not an index of a class'),
        ('a.mp4 0\nb.jpg 1\n', 'has both videos and images'),
        ('b.mp4 0\nc.mp4 0\n', 'None of the'),
    ],
)
def test_a_wrong_list_is_refused(refused, tmp_path, text, said):
    put(tmp_path / 'src/a.mp4')
    put(tmp_path / 'src/train.csv', text)
    put(tmp_path / 'names', 'run\nwalk\n')
    assert said in refused('mine', '--src', tmp_path / 'src', '--classes', tmp_path / 'names')


def test_wrong_folders_are_refused(refused, tmp_path):
    src = folders(tmp_path / 'src')
    assert 'has neither a folder per class' in refused('mine', '--src', src / 'walk')
    assert 'is an archive; unpack it' in refused('mine', '--src', put(tmp_path / 'clips.zip'))
    put(tmp_path / 'a/test.csv', 'a.mp4 0\n')
    assert 'test.csv but no list to train on' in refused('mine', '--src', tmp_path / 'a')
    put(tmp_path / 'b/train/a.mp4')
    assert 'train in it should hold a folder per class' in refused('mine', '--src', tmp_path / 'b')
    put(src / 'walk/x.jpg')
    assert 'both videos and images' in refused('mine', '--src', src)
    (src / 'walk/x.jpg').unlink()
    bad = src / 'walk/bad\udcff.mp4'
    bad.touch()
    assert r"'walk/bad\udcff.mp4' is not UTF-8; rename it" in refused('mine', '--src', src)
    bad.rename(src / 'walk/two\nlines.mp4')
    assert 'has a line break' in refused('mine', '--src', src)
    assert 'whose folders are classes' in refused('mine', '--src', src, '--out', src / 'out')


def test_two_names_of_a_file_in_train_and_test(refused, tmp_path):
    for name in 'ab':
        put(tmp_path / f'src/{name}.mp4')
    put(tmp_path / 'src/train.csv', 'a.mp4,0\nb.mp4,1\n')
    put(tmp_path / 'src/test.csv', './b.mp4,1\n')
    assert 'b.mp4 is in both train and test' in refused('mine', '--src', tmp_path / 'src')


@pytest.mark.parametrize('slip', ['-1', 'x', '1.0'])
def test_a_slip_among_indices_does_not_renumber_the_classes(refused, tmp_path, slip):
    listed = ''.join(f'{n}.mp4,{n % 12}\n' for n in range(48)) + f'48.mp4,{slip}\n'
    for n in range(49):
        put(tmp_path / f'src/{n}.mp4')
    put(tmp_path / 'src/train.csv', listed)
    assert 'train.csv, line 49' in refused('mine', '--src', tmp_path / 'src')


def test_folders_named_with_capitals_are_the_lists_too(here, tmp_path):
    for part, name in (('Train', 'a'), ('Train', 'b'), ('Test', 'a'), ('Test', 'b')):
        for n in range(3):
            put(tmp_path / f'src/{part}/{name}/{n}.mp4')
    assert call('mine', '--src', tmp_path / 'src') == 0
    assert lines(here / 'data/mine/classes.txt') == ['a', 'b'] and len(lines(here / 'data/mine/test.txt')) == 6


def test_two_a_class_are_too_few_to_spare_one(refused, tmp_path):
    src = folders(tmp_path / 'src', count=2)
    assert 'each needs three' in refused('mine', '--src', src)


def test_out_is_a_file(refused, here, tmp_path):
    put(here / 'taken')
    assert 'taken is a file' in refused('mine', '--src', folders(tmp_path / 'src'), '--out', 'taken')
