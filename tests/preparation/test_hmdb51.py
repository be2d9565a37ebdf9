"""HMDB51 in its official layouts, with the real lists of split 1 where they are at hand."""

from __future__ import annotations

import json
import shutil

import pytest
from trees import REAL, call, lines, put, rar

LISTS = REAL / 'annotations/hmdb51'
real_lists = pytest.mark.skipif(not LISTS.exists(), reason='the real lists are not at hand')
SMALL = {
    'clap_test_split1.txt': ''.join(f'c{i} #b.avi 1 \n' for i in range(6)) + 'c6.avi 2 \nc7.avi 0 \n',
    'wave_test_split1.txt': ''.join(f'w{i}.avi 1 \n' for i in range(6)) + 'w6.avi 2 \n',
}
CLIPS = {c: [f'{c[0]}{i}{" #b" if c == "clap" and i < 6 else ""}.avi' for i in range(7)] for c in ('clap', 'wave')}


def small(src, lists='testTrainMulti_7030_splits'):
    """Two classes, unpacked."""
    for name, text in SMALL.items():
        put(src / lists / name, text)
    for name, clips in CLIPS.items():
        for clip in clips:
            put(src / name / clip, clip)
    return src


def prepared(here, src, *options):
    assert call('hmdb51', '--src', src, *options) == 0
    return here / 'data/hmdb51'


@real_lists
def test_the_real_lists_of_split_1(here, tmp_path, capsys):
    for path in LISTS.glob('*_split1.txt'):
        name = path.name.removesuffix('_test_split1.txt')
        for line in path.read_text().splitlines():
            put(tmp_path / 'src' / name / line.split()[0], '')
    shutil.copytree(LISTS, tmp_path / 'src/lists')
    out = prepared(here, tmp_path / 'src', '--split', 1)
    # alphabetical; the list has kick_ball before kick and sword_exercise before sword, as file names sort
    assert lines(out / 'classes.txt') == sorted(name.strip() for name in lines(LISTS / 'class_list.txt'))
    assert len(lines(out / 'trainval.txt')) == 3570 and len(lines(out / 'test.txt')) == 1530
    expected = {  # read here, in another way than there
        f'{p.name.removesuffix("_test_split1.txt")}/{name}': kind
        for p in LISTS.glob('*_split1.txt')
        for name, kind in (line.split() for line in p.read_text().splitlines())
    }
    assert {line.rpartition(' ')[0] for line in lines(out / 'test.txt')} == {
        n for n, k in expected.items() if k == '2'
    }
    assert 'warning' not in capsys.readouterr().err
    about = json.loads((out / 'dataset.json').read_text())
    assert about['counts'] == dict(trainval=3570, train=3213, val=357, test=1530) and about['split'] == 1
    assert about['official'] == dict(trainval=3570, test=1530, classes=51) and about['missing'] == 0


def test_unpacked_folders_are_used_as_they_are(here, tmp_path, capsys):
    out = prepared(here, small(tmp_path / 'src'))
    assert (out / 'videos').readlink() == tmp_path / 'src' and lines(out / 'classes.txt') == ['clap', 'wave']
    assert lines(out / 'trainval.txt')[:2] == ['clap/c0 #b.avi 0', 'clap/c1 #b.avi 0']
    assert lines(out / 'test.txt') == ['clap/c6.avi 0', 'wave/w6.avi 1']
    said = capsys.readouterr()
    assert 'hmdb51 has 12 samples in the trainval list; officially it has 3,570' in said.err
    assert 'tools/train.py configs/swin_bapat_hmdb51_b128.py' in said.out and 'check hmdb51' in said.out


@pytest.mark.parametrize('nested', [True, False])
def test_rar_files_are_unpacked_once(here, tmp_path, nested):
    src = small(tmp_path / 'src')
    for name, clips in CLIPS.items():
        rar(src / f'{name}.rar', {f'{name}/{clip}' if nested else clip: clip.encode() for clip in clips})
        shutil.rmtree(src / name)
    out = prepared(here, src)
    clip = out / 'videos/clap/c0 #b.avi'
    assert not (out / 'videos').is_symlink() and clip.read_bytes() == b'c0 #b.avi'
    before = clip.stat()
    assert prepared(here, src, '--seed', 3) and clip.stat().st_ino == before.st_ino
    assert not list((here / 'data').glob('.*'))


def test_everything_in_the_two_archives_of_the_homepage(here, tmp_path):
    small(tmp_path / 'made')
    inner = {}
    for name, clips in CLIPS.items():
        path = rar(tmp_path / f'{name}.rar', {f'{name}/{clip}': clip.encode() for clip in clips})
        inner[path.name] = path.read_bytes()
    rar(tmp_path / 'src/hmdb51_org.rar', inner)
    rar(
        tmp_path / 'src/test_train_splits.rar',
        {f'testTrainMulti_7030_splits/{n}': t.encode() for n, t in SMALL.items()},
    )
    out = prepared(here, tmp_path / 'src/hmdb51_org.rar')
    assert (out / 'videos/wave/w6.avi').read_bytes() == b'w6.avi' and len(lines(out / 'trainval.txt')) == 12


def test_missing_videos_stay_in_the_lists_and_are_told(here, tmp_path, capsys):
    src = small(tmp_path / 'src')
    (src / 'wave/w1.avi').unlink()
    out = prepared(here, src)
    assert lines(out / 'missing.txt') == ['wave/w1.avi'] and 'wave/w1.avi 1' in lines(out / 'trainval.txt')
    assert '1 of 14 listed files are missing' in capsys.readouterr().err
    assert json.loads((out / 'dataset.json').read_text())['missing'] == 1
    put(src / 'wave/w1.avi')
    assert not (prepared(here, src) / 'missing.txt').exists()


def test_what_is_missing_is_named(refused, tmp_path):
    assert 'has no *_test_split1.txt lists' in refused('hmdb51', '--src', put(tmp_path / 'a/x.avi').parent)
    src = small(tmp_path / 'src')
    assert 'it has those of split 1' in refused('hmdb51', '--src', src, '--split', 2)
    for name in CLIPS:
        shutil.rmtree(src / name)
    assert 'neither class folders such as clap, nor clap.rar' in refused('hmdb51', '--src', src)
    (src / 'clap').mkdir()
    assert 'None of the 14 listed files' in refused('hmdb51', '--src', src)
    rar(src / 'clap.rar', {'../clap/c0.avi': b'x'})
    rar(src / 'wave.rar', {'wave/w0.avi': b'x'})
    assert 'would land outside' in refused('hmdb51', '--src', src)


@pytest.mark.parametrize('line', ['w9.avi', 'w9.avi 3', '1'])
def test_a_damaged_list_is_refused_with_its_line(refused, tmp_path, line):
    src = small(tmp_path / 'src')
    put(src / 'testTrainMulti_7030_splits/wave_test_split1.txt', f'w0.avi 1 \n{line}\n')
    assert 'wave_test_split1.txt, line 2' in refused('hmdb51', '--src', src)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda src: (src / 'testTrainMulti_7030_splits/clap_test_split1.txt').unlink(), 'clap has no list'),
        (
            lambda src: put(src / 'testTrainMulti_7030_splits/clap_test_split1.txt', '\n'),
            'clap_test_split1.txt is empty',
        ),
        (lambda src: (shutil.rmtree(src / 'wave'), put(src / 'wave.rar', b'junk')), 'wave.rar is not unpacked'),
    ],
)
def test_half_of_a_class_is_refused_as_its_labels_would_shift(refused, tmp_path, change, said):
    src = small(tmp_path / 'src')
    change(src)
    assert said in refused('hmdb51', '--src', src)


def test_more_lists_than_classes(refused, tmp_path):
    src = small(tmp_path / 'src')
    for n in range(50):
        put(src / f'testTrainMulti_7030_splits/x{n}_test_split1.txt', 'a.avi 1\n')
    assert 'has 52 *_test_split1.txt lists' in refused('hmdb51', '--src', src)
