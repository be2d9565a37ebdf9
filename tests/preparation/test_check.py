"""A check finds what is wrong with files and lists, writes lists without it, and goes on where it was."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from numbered import truncate, write
from PIL import Image
from trees import REAL, call

from vpetl_mm import UserError
from vpetl_mm.preparation import check as module
from vpetl_mm.preparation.check import check
from vpetl_mm.preparation.small_copy import make_copy

LISTS = {
    'train': ['a/0.mp4 0', 'a/1.mp4 0', 'b/2.mp4 1', 'b/3 x.mp4 1'],
    'val': ['a/4.mp4 0', 'b/5.mp4 1'],
    'test': ['a/6.mp4 0', 'b/7.mp4 1'],
}


def put_lists(out: Path, kind: str = 'video', official: dict | None = None, **lists: list[str]) -> None:
    """The lists, ``trainval`` unless it is given, with what else ``tools/prepare_data.py`` writes."""
    whole = lists.get('trainval', [line for name in ('train', 'val') for line in lists.get(name, [])])
    lists = {'trainval': whole, **lists}
    for name, lines in lists.items():
        (out / f'{name}.txt').write_bytes(''.join(f'{line}\n' for line in lines).encode('utf-8', 'surrogateescape'))
    (out / 'classes.txt').write_text('sit\nstand up\n')
    media = {'video': 'videos', 'image': 'images', 'array': '.'}[kind]
    counts = {name: len(lines) for name, lines in lists.items()}
    about = dict(name='mine', kind=kind, media=media, counts=counts, classes=2, official=official or {})
    (out / 'dataset.json').write_text(json.dumps(about))


@pytest.fixture
def out(tmp_path) -> Path:
    """Eight videos of different content, and their lists."""
    out = tmp_path / 'mine'
    for lines in LISTS.values():
        for line in lines:
            name = line.rpartition(' ')[0]
            write(out / 'videos' / name, count=17 + int(name[2]))
    put_lists(out, **LISTS)
    return out


def report(out: Path) -> dict[str, list[dict]]:
    return {kind: found for kind, found in json.loads((out / 'check.json').read_text())['problems'].items() if found}


def clean(out: Path) -> dict[str, list[str]]:
    return {
        f.name.removesuffix('_clean.txt'): f.read_text(errors='surrogateescape').splitlines()
        for f in out.glob('*_clean.txt')
    }


def test_nothing_is_wrong(out, capfd):
    assert check(out, 2, 16) == 0
    assert clean(out) == {**LISTS, 'trainval': LISTS['train'] + LISTS['val']} and report(out) == {}
    said = capfd.readouterr()
    assert said.out == '0 problems. Good lines: trainval 6 of 6, train 4 of 4, val 2 of 2, test 2 of 2.\n'
    assert said.err.count('\n') <= 1
    assert json.loads((out / 'check.json').read_text())['lists']['train'] == dict(lines=4, clean=4, per_class=[2, 2])


def test_every_kind_of_bad_file(out, capfd):
    videos = out / 'videos'
    for name, damage in {
        'a/0.mp4': lambda path: path.write_bytes(b''),
        'a/1.mp4': lambda path: path.write_text('no video'),
        'b/2.mp4': lambda path: (path.unlink(), path.mkdir()),
        'b/3 x.mp4': lambda path: truncate(path, path),
        'a/4.mp4': lambda path: write(path, count=15),
        'b/5.mp4': Path.unlink,
    }.items():
        damage(videos / name)
    assert check(out, 2, 16) == 6
    found = report(out)
    assert {p['path']: p['detail'].split()[0] for p in found['unreadable']} == {
        'a/0.mp4': 'OSError:',
        'a/1.mp4': 'RuntimeError:',
        'b/2.mp4': 'IsADirectoryError:',
        'b/3 x.mp4': 'RuntimeError:',
    }
    assert found['too_short'] == [dict(where='val', path='a/4.mp4', detail='15 frames, fewer than 16')]
    assert found['missing'] == [dict(where='val', path='b/5.mp4', detail='')]
    assert clean(out) == dict(trainval=[], train=[], val=[], test=LISTS['test'])
    said = capfd.readouterr()
    assert '4 cannot be read: a/0.mp4  (train)  OSError: is empty' in said.out and said.err.count('\n') <= 1, (
        'nothing of FFmpeg'
    )
    assert '      1 not on disk: b/5.mp4  (val)' in said.out


@pytest.mark.parametrize(
    ('line', 'kind', 'path'),
    [
        ('a/6.mp4 0', 'in_two_lists', 'a/6.mp4'),
        ('a/0.mp4 0', 'listed_twice', 'a/0.mp4'),
        ('a/0.mp4 1', 'listed_twice', 'a/0.mp4'),
        ('a/1.mp4 2', 'bad_label', 'a/1.mp4'),
        ('a/1.mp4 -1', 'bad_label', 'a/1.mp4'),
        ('a/1.mp4', 'bad_line', 'a/1.mp4'),
        ('../x 1', 'bad_line', '../x 1'),
        ('x\0 1', 'bad_line', r'x\x00 1'),
        ('/x 1', 'bad_line', '/x 1'),
    ],
)
def test_every_kind_of_bad_line(out, line, kind, path):
    put_lists(out, **{**LISTS, 'train': ['a/0.mp4 0', 'b/2.mp4 1', line]})
    assert check(out, 1, 16) == 1
    assert [(k, [p['path'] for p in v]) for k, v in report(out).items()] == [(kind, [path])]
    left = ['a/0.mp4 0', 'b/2.mp4 1'] if line != 'a/0.mp4 1' else ['b/2.mp4 1']  # of two labels neither is trusted
    assert clean(out) == dict(LISTS, train=left, trainval=left + LISTS['val'])


def test_the_same_content_under_another_name(out):
    videos = out / 'videos'
    shutil.copy(videos / 'a/6.mp4', videos / 'a/0.mp4')  # a test video in train
    shutil.copy(videos / 'b/2.mp4', videos / 'a/1.mp4')  # with two labels in train
    shutil.copy(videos / 'b/7.mp4', videos / 'b/8.mp4')  # in one list with one label: no harm
    put_lists(out, **{**LISTS, 'test': [*LISTS['test'], 'b/8.mp4 1']})
    assert check(out, 1, 16) == 2
    assert {(p['where'], p['path'], p['detail']) for p in report(out)['same_content']} == {
        ('train, test', 'a/0.mp4', 'as a/6.mp4'),
        ('train', 'a/1.mp4', 'as b/2.mp4'),
    }
    assert clean(out)['train'] == ['b/3 x.mp4 1'] and clean(out)['trainval'] == ['b/3 x.mp4 1', *LISTS['val']]
    assert len(clean(out)['test']) == 3


def test_the_same_content_after_reencoding(out):
    """Of two copies with two notes of what they are of."""
    for name, note in (('a/0.mp4', 'one'), ('a/6.mp4', 'another')):
        make_copy(out / 'videos/b/2.mp4', out / 'videos' / name, 64, note)
    assert (out / 'videos/a/0.mp4').read_bytes() != (out / 'videos/a/6.mp4').read_bytes()
    assert check(out, 1, 16) == 1
    assert [p['path'] for p in report(out)['same_content']] == ['a/0.mp4']


def test_counts_parts_and_empty_classes(out):
    put_lists(out, trainval=LISTS['train'], official=dict(trainval=6, test=2, classes=174), **LISTS)
    (out / 'classes.txt').write_text('sit\nstand up\nwave\n')
    assert check(out, 1, 16) == 2 + 2 + 4
    found = report(out)
    assert [p['path'] for p in found['parts']] == LISTS['val']
    assert {(p['where'], p['detail']) for p in found['count']} == {
        ('trainval', '4, officially 6'),
        ('classes', '3, officially 174'),
    }
    assert {(p['where'], p['detail']) for p in found['empty_class']} == {
        (name, '2 wave') for name in (*LISTS, 'trainval')
    }


def test_images(tmp_path):
    out = tmp_path / 'mine'
    (out / 'images').mkdir(parents=True)
    for i in range(4):
        Image.fromarray(np.full((40, 30, 3), 60 * i, np.uint8)).save(out / f'images/{i}.jpg')
    truncate(out / 'images/1.jpg', out / 'images/1.jpg', 0.9)
    put_lists(out, 'image', train=['0.jpg 0', '1.jpg 1'], val=['2.jpg 0'], test=['3.jpg 1'])
    check(out, 2, 16)
    assert [p['path'] for p in report(out)['unreadable']] == ['1.jpg']
    assert clean(out)['train'] == ['0.jpg 0']


def test_arrays(tmp_path):
    tmp_path.joinpath('mine').mkdir()
    lists = dict(train=['0 0', '1 1', '2 0'], val=['3 1', '4 0'], test=['0 0', '1 1', '2 5', '-1 0', '3 1', '4 1'])
    put_lists(tmp_path / 'mine', 'array', **lists)
    about = json.loads((tmp_path / 'mine/dataset.json').read_text())
    about['counts']['test'] = 4
    (tmp_path / 'mine/dataset.json').write_text(json.dumps(about))
    assert check(tmp_path / 'mine', 1, 16) == 3
    found = report(tmp_path / 'mine')
    assert {p['path'] for p in found['unreadable']} == {'-1', '4'} and found['bad_label'][0]['path'] == '2'
    assert clean(tmp_path / 'mine')['test'] == ['0 0', '1 1', '3 1'], 'indices of another file than those of train'


def counted(monkeypatch, log: Path, seconds: float = 0) -> None:
    """Note every file that is opened."""
    original = module.INSPECT['video']

    def inspect(path: str):
        with open(log, 'a') as stream:
            stream.write(f'{path}\n')
        time.sleep(seconds)
        return original(path)

    monkeypatch.setitem(module.INSPECT, 'video', inspect)


def opened(log: Path) -> list[str]:
    names = [Path(line).name for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return sorted(names)


def test_what_is_known_is_not_opened_again(out, tmp_path, monkeypatch):
    counted(monkeypatch, tmp_path / 'log')
    (out / 'videos/a/0.mp4').write_text('no video')
    assert check(out, 2, 16) == 1 and len(opened(tmp_path / 'log')) == 8
    first = (out / 'check.json').read_bytes()
    assert check(out, 2, 16) == 1 and opened(tmp_path / 'log') == [] and (out / 'check.json').read_bytes() == first
    write(out / 'videos/a/0.mp4', count=30)
    assert check(out, 2, 16) == 0 and opened(tmp_path / 'log') == ['0.mp4']
    assert check(out, 2, 20) == 2 and opened(tmp_path / 'log') == [], 'another limit needs no file opened'


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_interrupted_it_goes_on_where_it_was(out, tmp_path, monkeypatch, capfd, how):
    """Also what Ctrl-C says, and that the report of an earlier check stays."""
    check(out, 2, 16)
    before = {name: (out / name).read_bytes() for name in ('check.json', 'train_clean.txt')}
    (out / 'check.jsonl').unlink()
    (out / 'videos/a/0.mp4').write_text('no video')
    counted(monkeypatch, tmp_path / 'log', 0.2)
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()

    def run() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            os._exit(call('check', 'mine', '--out', out, '--workers', 2))
        except SystemExit as end:
            os._exit(end.code)

    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    journal = out / 'check.jsonl'
    while not journal.exists() or journal.read_bytes().count(b'\n') < 3:
        time.sleep(0.01)
    os.kill(process.pid, how)
    process.join()
    done = journal.read_bytes().count(b'\n')
    assert process.exitcode == (130 if how == signal.SIGINT else -9) and 3 <= done < 8
    if how == signal.SIGINT:
        said = capfd.readouterr()
        assert said.err.count('interrupted') == 1 and 'Traceback' not in said.err and not said.out
    assert {name: (out / name).read_bytes() for name in before} == before
    time.sleep(0.5)  # what a killed run was opening
    opened(tmp_path / 'log')
    assert check(out, 2, 16) == 1 and len(opened(tmp_path / 'log')) == 8 - done
    assert clean(out)['train'] == LISTS['train'][1:]


def test_what_training_reads_is_no_problem(out):
    """AV1 in an mp4 file, which decord refuses."""
    write(out / 'videos/a/0.mp4', 'libsvtav1', 20)
    assert check(out, 1, 16) == 0


@pytest.mark.parametrize('label', ['--5', '9' * 5000, '1e3', '-', ''])
def test_a_label_that_python_cannot_read_is_a_bad_line(out, label):
    put_lists(out, **{**LISTS, 'val': [f'a/4.mp4 {label}', 'b/5.mp4 1']})
    assert check(out, 1, 16) and report(out)['bad_line'][0]['where'] == 'val' and clean(out)['val'] == ['b/5.mp4 1']


def test_crashes_and_hangs_end_nothing(out, tmp_path, monkeypatch):
    original = module.INSPECT['video']

    def inspect(path: str):
        if path.endswith('a/0.mp4'):
            os.kill(os.getpid(), signal.SIGSEGV)
        if path.endswith('b/2.mp4'):
            time.sleep(60)
        return original(path)

    monkeypatch.setitem(module.INSPECT, 'video', inspect)
    monkeypatch.setattr(module, 'SECONDS', 1)
    assert check(out, 2, 16) == 2
    assert {p['path']: p['detail'] for p in report(out)['unreadable']} == {
        'a/0.mp4': 'crashed the decoder (SIGSEGV)',
        'b/2.mp4': 'took more than 1 seconds',
    }
    monkeypatch.setitem(module.INSPECT, 'video', original)
    assert check(out, 2, 16) == 1, 'what was only slow is tried again'


def state(out, **change):
    about = json.loads((out / 'dataset.json').read_text())
    (out / 'dataset.json').write_text(json.dumps(about | change))


@pytest.mark.parametrize(
    ('damage', 'said'),
    [
        (lambda out: (out / 'dataset.json').unlink(), r'dataset\.json does not exist'),
        (lambda out: (out / 'dataset.json').write_text('{'), 'truncated or not JSON'),
        (lambda out: (out / 'dataset.json').write_text('{}'), 'does not say what the data is'),
        (lambda out: (out / 'dataset.json').write_text('[' * 100_000), 'truncated or not JSON'),
        (lambda out: state(out, media='..'), 'does not say what the data is'),
        (lambda out: state(out, media=['videos']), 'does not say what the data is'),
        (lambda out: state(out, kind=['video']), 'does not say what the data is'),
        (lambda out: state(out, counts=dict(train='4')), 'does not say what the data is'),
        (lambda out: state(out, official=dict(train='4')), 'does not say what the data is'),
        (lambda out: (out / 'check.jsonl').symlink_to(out / 'classes.txt'), 'is a link'),
        (lambda out: (out / 'check.jsonl').mkdir(), r'check\.jsonl: Is a directory'),
        (lambda out: (out / 'train.txt').unlink(), r'train\.txt does not exist'),
        (lambda out: (out / 'classes.txt').unlink(), r'classes\.txt does not exist'),
        (lambda out: shutil.rmtree(out / 'videos'), 'videos, are not there'),
        (lambda out: put_lists(out, train=[], val=[], test=[]), 'are empty'),
    ],
)
def test_what_was_not_prepared_is_refused(out, damage, said):
    damage(out)
    there = sorted(out.rglob('*'))
    with pytest.raises(UserError, match=said):
        check(out, 1, 16)
    assert sorted(out.rglob('*')) == there


@pytest.mark.skipif(not (REAL / 'clips').is_dir(), reason='needs ../shared/data/clips')
def test_real_clips_and_what_a_broken_download_leaves_of_them(tmp_path):
    """Containers that can be read without their end, such as avi and mkv, give fewer frames than they promise."""
    out = tmp_path / 'mine'
    (out / 'videos').mkdir(parents=True)
    whole = sorted((REAL / 'clips').iterdir())
    for clip in whole:
        (out / 'videos' / clip.name).symlink_to(clip)
        truncate(clip, out / 'videos' / f'cut_{clip.name}')
    names = [clip.name for clip in whole]
    odd = 'bytes_\udcff.mp4'  # a name that is not UTF-8
    write(tmp_path / 'odd.mp4').rename(out / 'videos' / odd)
    put_lists(out, train=[f'{n} 0' for n in names], val=[f'cut_{n} 1' for n in names], test=[f'{odd} 0'])
    check(out, 2, 16)
    assert clean(out)['train'] == [f'{n} 0' for n in names] and clean(out)['val'] == []
    assert clean(out)['test'] == [f'{odd} 0'], 'training reads it'
    found = report(out)
    assert {p['path'] for p in found['cut_short']} >= {f'cut_{n}' for n in names if n.endswith(('avi', 'mkv'))}
    assert all(p['where'] == 'val' for p in found['cut_short'])
    assert {p['detail'] for p in found['unreadable']} == {'RuntimeError: Invalid data found when processing input'}
