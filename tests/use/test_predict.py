"""tools/predict.py as it is used: many inputs, some of them broken, and outputs that others read."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import predicting
import pytest
from PIL import Image
from scipy.io import wavfile

from tools import call, refused
from vpetl_mm.use.predict.reader import Reader

pytestmark = pytest.mark.usefixtures('elsewhere')


@pytest.fixture
def clips(drawn_clips, elsewhere) -> list[Path]:
    """Three clips in clips/."""
    Path('clips').mkdir()
    return [Path(shutil.copy(path, f'clips/{name}.mp4')) for path, name in zip(drawn_clips, 'abc', strict=False)]


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_what_is_broken_is_named_and_skipped_and_the_order_stays(video_bundle, clips, capsys):
    """Beside it the same file twice, a link, and names with spaces, line ends and bytes that are not UTF-8."""
    Path('clips/empty.mp4').touch()
    Path('clips/text.mp4').write_text('no video\n' * 100)
    wavfile.write('clips/sound.mp4', 8000, np.zeros(8000, 'int16'))
    Path('clips/cut.mp4').write_bytes(clips[0].read_bytes()[:1500])
    Path('clips/link.mp4').symlink_to('a.mp4')
    Path('clips/lost.mp4').symlink_to('nothing.mp4')
    odd = ['clips/a b\n$c.mp4', os.fsdecode(b'clips/\xff.mp4'), 'clips/猫.mp4', 'clips/-']
    for name in odd:
        shutil.copy(clips[1], name)
    bad = [f'clips/{name}.mp4' for name in ('empty', 'text', 'sound', 'cut', 'lost', 'gone')]
    good = [*map(str, clips), str(clips[0]), 'clips/link.mp4', *odd]
    order = [part for pair in zip(good, bad, strict=False) for part in pair] + good[len(bad) :]
    assert call('predict', video_bundle, *order, '--json', '-', '--csv', 'p.csv') == 1
    out, err = capsys.readouterr()
    told = lines(out)
    assert [entry['input'] for entry in told] == order
    assert [entry['input'] for entry in told if 'error' in entry] == bad
    assert all(f'error: {name}: ' in err for name in bad) and 'Traceback' not in err
    assert '9 videos in' in err and '6 could not be read' in err
    by_name = {entry['input']: entry for entry in told}
    assert {entry['score'] for name, entry in by_name.items() if name in odd} == {by_name[str(clips[1])]['score']}
    assert by_name['clips/link.mp4']['topk'] == by_name[str(clips[0])]['topk']
    text = Path('p.csv').read_text(encoding='utf-8', errors='surrogateescape')
    rows = list(csv.DictReader(io.StringIO(text, newline='')))
    assert [row['input'] for row in rows] == order and [row['input'] for row in rows if row['error']] == bad
    assert [row['name1'] for row in rows] == [entry.get('name', '') for entry in told]


def test_lines_for_people(video_bundle, clips, capsys):
    assert call('predict', video_bundle, 'clips', '--topk', '2', '--dtype', 'float32') == 0
    out, err = capsys.readouterr()
    rows = out.splitlines()
    assert [row.split()[0] for row in rows] == [*map(str, clips)] and len({row.index('%') for row in rows}) == 1
    assert all(sum(name in row for name in predicting.CLASSES) == 2 for row in rows)
    assert '6 views of each video' in err and 'float32' in err and '3 videos in' in err


def test_the_ways_to_name_inputs(video_bundle, clips, capsys, monkeypatch):
    Path('clips/below').mkdir()
    shutil.copy(clips[0], 'clips/below/D.MP4')
    Path('clips/notes.txt').write_text('not read\n')
    for given, content, expected in (
        (['clips'], b'', ['clips/a.mp4', 'clips/b.mp4', 'clips/c.mp4', 'clips/below/D.MP4']),
        (['clips/[ab].mp4', 'clips/c.mp4'], b'', ['clips/a.mp4', 'clips/b.mp4', 'clips/c.mp4']),
        (['-'], b'clips/b.mp4\r\n\nclips/a.mp4', ['clips/b.mp4', 'clips/a.mp4']),
        (['clips/c.mp4', '-'], b'clips/b.mp4\0clips/a.mp4\0', ['clips/c.mp4', 'clips/b.mp4', 'clips/a.mp4']),
    ):
        monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(content)))
        assert call('predict', video_bundle, *given, '--json', '-') == 0
        assert sorted(entry['input'] for entry in lines(capsys.readouterr().out)) == sorted(expected)


def test_wrong_use_ends_at_once(video_bundle, clips, capsys, monkeypatch):
    Path('empty').mkdir()
    Path('pictures').mkdir()
    Image.new('RGB', (8, 8)).save('pictures/a.png')
    Path('there.csv').touch()
    monkeypatch.setattr('vpetl_mm.commands.predict.PETLInferencer', None)  # no model is built before
    for argv, said in (
        (['nothing.mp4'], 'nothing.mp4 does not exist'),
        (['*.mp4', 'x'], '*.mp4 matches nothing, and neither do 1 more'),
        (['empty'], 'There are no videos in empty.'),
        (['pictures'], 'There are no videos in pictures, but 1 images; small classifies videos'),
        (['clips/a.mp4', 'pictures/a.png'], 'pictures/a.png is an image, and small classifies videos'),
        (['0', 'clips'], '0 is the number of a camera'),
        (['clips', '--csv', 'there.csv'], 'there.csv exists: give a new name'),
        (['clips', '--json', 'nowhere/a.json'], 'its folder does not exist'),
        (['clips', '--json', '-', '--csv', '-'], 'Only one of'),
        (['clips', '--show-dir', 'pictures'], 'pictures exists: give a new name'),
        (['clips', '--topk', '0'], '--topk must be a whole number of at least 1'),
        (['clips', '--batch-size', '0'], '--batch-size must be a whole number of at least 1'),
    ):
        assert said in refused(capsys, 'predict', video_bundle, *argv), argv
    bundle = predicting.made(Path(), predicting.IMAGES, load=predicting.FILES)[-1]
    assert 'clips/a.mp4 is a video, and small classifies images' in refused(capsys, 'predict', bundle, 'clips/a.mp4')


def test_a_camera_that_is_not_there(video_bundle, capfd):
    assert call('predict', video_bundle, '77') == 2
    assert 'error: Camera 77 does not exist' in capfd.readouterr().err.splitlines()[-1]


def test_a_picture_of_every_clip(video_bundle, clips, capsys):
    shutil.copy(clips[0], 'clips/a$b.avi')
    assert call('predict', video_bundle, 'clips', 'clips/gone.mp4', 'clips/a.mp4', '--show-dir', 'pictures') == 1
    names = [path.name for path in sorted(Path('pictures').iterdir())]
    assert names == ['0001_a$b.png', '0002_a.png', '0003_b.png', '0004_c.png', '0006_a.png']
    assert all(Image.open(path).size[0] == 1600 for path in Path('pictures').iterdir())


def begun(*argv: object) -> tuple[int, io.TextIOBase]:
    """Start the tool in a process group of its own; its number, which is the group's, and its standard output."""
    out, theirs = os.pipe()
    if process := os.fork():
        os.close(theirs)
        return process, open(out, encoding='utf-8')
    try:
        os.setsid()
        os.close(out)
        os.dup2(theirs, 1)
        sys.stdout, sys.stderr = io.TextIOWrapper(io.FileIO(1, 'w')), Path('errors').open('a', buffering=1)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = call('predict', *argv, '--json', '-', '--batch-size', 1)
    except BaseException:
        status = traceback.print_exc() or 99
    os._exit(status)


def ended(process: int) -> int:
    """Wait for a process to end and for all of its group; its exit status."""
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    for _ in range(100):
        try:
            os.killpg(process, 0)
        except ProcessLookupError:
            return status
        time.sleep(0.1)
    pytest.fail('a process is left')


def test_interrupted_while_a_worker_reads_what_was_told_stays_told(video_bundle, clips, monkeypatch):
    read = Reader.read
    monkeypatch.setattr(Reader, 'read', lambda s, x: time.sleep(600) if 'c.mp4' in x else read(s, x))
    process, out = begun(video_bundle, *['clips/a.mp4', 'clips/b.mp4'] * 4, 'clips/c.mp4')
    told = lines(''.join(out.readline() for _ in range(8)))
    assert all('label' in entry for entry in told)
    os.killpg(process, signal.SIGINT)  # as a terminal does
    assert (ended(process), out.read()) == (130, '')
    errors = Path('errors').read_text()
    assert errors.endswith('interrupted\n') and '8 videos in' in errors and 'Traceback' not in errors


def test_the_reader_of_the_output_leaves(video_bundle, clips):
    process, out = begun(video_bundle, *['clips/a.mp4'] * 300)
    out.readline()
    out.close()
    assert ended(process) == 0 and 'Traceback' not in Path('errors').read_text()


def test_killed_it_leaves_no_worker(video_bundle, clips):
    process, out = begun(video_bundle, *['clips/a.mp4'] * 3000)
    out.readline()
    os.kill(process, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL


def test_a_clip_that_crashes_the_decoder_costs_itself(video_bundle, clips, monkeypatch, capsys):
    read = Reader.read
    monkeypatch.setattr(Reader, 'read', lambda s, x: os.abort() if 'b.mp4' in x else read(s, x))
    assert call('predict', video_bundle, 'clips', '--json', '-') == 1
    first, crashed, last = lines(capsys.readouterr().out)
    assert 'label' in first and 'crashed the decoder (SIGABRT)' in crashed['error'] and 'label' in last
