"""What others made is left alone, and a failure or a kill at any moment leaves the earlier result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tarfile

import numpy as np
import pytest
from trees import REPO, call, put, snapshot, ssv2, tar

from vpetl_mm.preparation import place


@pytest.fixture
def src(tmp_path):
    return ssv2(tmp_path / 'src', train=40)


@pytest.mark.parametrize('name', ['train.txt', 'videos/mine.webm', 'dataset.json'])
def test_what_another_hand_made_is_never_replaced(refused, here, src, name):
    put(here / 'data/ssv2' / name, 'mine')
    first = name.split('/')[0]
    assert f'{first} exists and was not made by this command' in refused('ssv2', '--src', src)


def test_a_folder_on_another_disk_may_be_linked_to(here, src, tmp_path):
    (tmp_path / 'disk').mkdir()
    (here / 'data').mkdir()
    (here / 'data/ssv2').symlink_to(tmp_path / 'disk/ssv2')
    assert call('ssv2', '--src', src) == 0 and (here / 'data/ssv2').is_symlink()
    assert (tmp_path / 'disk/ssv2/train.txt').is_file() and os.listdir(tmp_path / 'disk') == ['ssv2']


def test_files_beside_the_lists_stay(here, src):
    put(here / 'data/ssv2/notes.md', 'mine')
    for _ in range(2):
        assert call('ssv2', '--src', src) == 0
    assert (here / 'data/ssv2/notes.md').read_text() == 'mine'


def test_a_source_that_lies_where_the_result_goes(here):
    ssv2(here / 'data/ssv2')
    (here / 'data/ssv2/20bn-something-something-v2').rename(here / 'data/ssv2/videos')
    before = snapshot(here)
    for seed in (0, 1):
        assert call('ssv2', '--src', 'data/ssv2', '--seed', seed) == 0
        assert before.items() <= snapshot(here).items()
    assert call('ssv2', '--src', 'data/ssv2', '--reencode') == 2
    assert before.items() <= snapshot(here).items()


def test_a_source_in_what_would_be_replaced_is_refused(here, refused, src):
    archive = tar(src.parent / 'food-101.tar.gz', {'food-101/images/pizza/1.jpg': b'1', **FOOD})
    assert call('food101', '--src', archive) == 0
    inner = here / 'data/food101/images'
    put(inner / 'images/pizza/1.jpg')
    shutil.copytree(here / 'data/food101/meta', inner / 'meta')
    assert 'in what this call would replace' in refused('food101', '--src', inner)


FOOD = {
    **{f'food-101/images/pizza/{i}.jpg': b'x' for i in range(2, 6)},
    'food-101/meta/train.txt': b'pizza/1\npizza/2\npizza/3\n',
    'food-101/meta/test.txt': b'pizza/4\npizza/5\n',
}


@pytest.mark.parametrize('failing', [0, 1, 6, 7, 8, 13])
def test_a_failure_while_files_change_place_undoes_it(here, src, monkeypatch, failing):
    assert call('ssv2', '--src', src) == 0
    before, replace, count = snapshot(here), os.replace, iter(range(100))

    def fail(start, end):
        if next(count) == failing:
            raise OSError(28, 'No space left on device', str(end))
        replace(start, end)

    with monkeypatch.context() as patch:
        patch.setattr(place.os, 'replace', fail)
        assert call('ssv2', '--src', src, '--seed', 5) == 2
    assert {k: v for k, v in snapshot(here).items() if '.partial' not in k} == before
    assert call('ssv2', '--src', src, '--seed', 5) == 0 and snapshot(here).keys() == before.keys()


def files(folder):
    return {path: held for path, held in snapshot(folder).items() if held is not None}


@pytest.mark.parametrize(('again', 'moves'), [(False, 1), (False, 6), (True, 1), (True, 2), (True, 8), (True, 13)])
def test_a_kill_while_files_change_place_is_mended_by_the_next_call(here, src, again, moves):
    if again:
        assert call('ssv2', '--src', src) == 0
    before = files(here)
    child = os.fork()
    if not child:  # the first replacement is that of the list of moves
        replace, left = os.replace, iter(range(moves))
        os.replace = lambda start, end: replace(start, end) if next(left, None) is not None else os._exit(9)
        call('ssv2', '--src', src, '--seed', 5)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert files(here) != before
    (src / 'something-something-v2-train.json').rename(src / 'elsewhere')
    assert call('ssv2', '--src', src) == 2 and files(here) == before, 'not even where the next call fails'


def killed(argv, files):
    """Run the command in a process of its own, which is killed before it unpacks one more than ``files``."""
    child = os.fork()
    if not child:
        plain, opened = tarfile.TarFile.extractfile, []

        def extractfile(*args):
            opened.append(args)
            if len(opened) > files:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args)

        tarfile.TarFile.extractfile = extractfile
        os._exit(call(*argv))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, 'it ended before it was killed'


def test_a_killed_call_changes_nothing_and_the_next_goes_on(here, tmp_path):
    rng = np.random.default_rng(0)
    files = {f'food-101/images/pizza/{i}.jpg': rng.bytes(200_000) for i in range(1, 400)}
    archive = tar(tmp_path / 'food-101.tar', {**FOOD, **files})
    unpacked = here / 'data/.food101.partial/unpacked/images/pizza'
    killed(['food101', '--src', archive], 25)
    assert 1 < len(os.listdir(unpacked)) < 30
    assert not (here / 'data/food101').exists()
    first = (unpacked / '2.jpg').stat().st_ino
    assert call('food101', '--src', archive) == 0
    done = here / 'data/food101/images/pizza'
    assert (done / '2.jpg').stat().st_ino == first and len(os.listdir(done)) == 399
    assert all((done / f'{i}.jpg').read_bytes() == files[f'food-101/images/pizza/{i}.jpg'] for i in range(1, 400))
    assert os.listdir(here / 'data') == ['food101']


def moves(folder, victim):
    """A list of moves for each way to say that ``victim`` goes into ``folder``."""
    away = os.path.relpath(victim, folder)
    outside = os.path.relpath(victim, folder.parent / 'ssv2')
    steps = [str(victim), 'loot', True], [outside, 'loot', True], ['loot', away, False], ['..', 'x', True]
    return [[[str(folder / 'loot'), str(victim)]], *([step] for step in steps)]


@pytest.mark.parametrize('way', range(5))
@pytest.mark.parametrize('ours', [False, True])
def test_a_list_of_moves_moves_nothing_else(here, src, tmp_path, way, ours, capsys):
    victim = put(tmp_path / 'home/thesis.txt', 'mine')
    folder = here / 'data/.ssv2.partial'
    if ours:  # left by this command, and changed
        with pytest.raises(KeyboardInterrupt), place.opened(here / 'data/ssv2', dict(source='x')) as other:
            other.new('x')
            raise KeyboardInterrupt
    else:
        put(folder / 'recipe.json', place.to_json(dict(name='ssv2', source=str(src), split=None, short_side=None)))
    put(folder / 'moves.json', json.dumps(moves(folder, victim)[way]))
    before = snapshot(tmp_path)
    assert call('ssv2', '--src', src) == 2 and snapshot(tmp_path) == before
    assert '.ssv2.partial' in capsys.readouterr().err and victim.read_text() == 'mine'


@pytest.mark.parametrize('what', ['link', 'built', 'deep'])
def test_a_folder_to_build_in_that_another_hand_made_is_not_taken_up(here, src, tmp_path, what):
    put(tmp_path / 'home/thesis.txt', 'mine')
    folder = here / 'data/.ssv2.partial'
    folder.parent.mkdir()
    if what == 'link':
        folder.symlink_to(tmp_path / 'home')
    else:
        recipe = dict(name='ssv2', source=str(src), split=None, short_side=None)
        if what == 'built':  # by a link to a file whose time can be known
            put(folder / 'recipe.json', place.to_json([os.stat(REPO / 'setup.py').st_ctime_ns, recipe]))
            (folder / 'mark').symlink_to(REPO / 'setup.py')
        else:
            put(folder / 'recipe.json', '[' * 100_000)
        (folder / 'videos').symlink_to(tmp_path / 'home')
    before = snapshot(tmp_path)
    assert call('ssv2', '--src', src) == 2 and snapshot(tmp_path) == before


def test_a_note_that_is_a_link_is_not_written_through(here, src, tmp_path):
    victim = put(tmp_path / 'home/thesis.txt', 'mine')
    (here / 'data/.ssv2.partial').mkdir(parents=True)
    for name in ('recipe.json', 'mark'):
        (here / 'data/.ssv2.partial' / name).symlink_to(victim)
    assert call('ssv2', '--src', src) == 0 and victim.read_text() == 'mine'


@pytest.mark.parametrize('made', [['', '.', '..', '../thesis.txt', 'a/b', 'x\0y', 3, None, ['x']], 'deep', {'a': 1}])
def test_what_an_earlier_result_says_that_it_made_leads_nowhere_else(here, src, tmp_path, made):
    victim = put(here / 'data/thesis.txt', 'mine')
    state = '[' * 100_000 if made == 'deep' else json.dumps(dict(made=made, recipe={}))
    put(here / 'data/ssv2/dataset.json', state)
    before = snapshot(here)
    assert call('ssv2', '--src', src) == 2 and snapshot(here) == before, 'dataset.json is not said to be made here'
    put(here / 'data/ssv2/dataset.json', json.dumps(dict(made=['dataset.json', *made])))
    assert call('ssv2', '--src', src) == 0 and victim.read_text() == 'mine'


def test_two_calls_at_once_are_refused(here, src):
    with place.opened(here / 'data/ssv2', dict(source='x')) as other:
        other.new('x')
        assert call('ssv2', '--src', src) == 2 and other.building.exists()
    assert call('ssv2', '--src', src) == 0
