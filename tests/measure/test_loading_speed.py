"""The benchmark of loading: what it measures and prints, and how it refuses wrong input."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from numbered import write

from tools import call
from vpetl_mm import UserError
from vpetl_mm.config import load_config
from vpetl_mm.measure.loading import OURS, STAGES, STOCK, SWIN, _Loader, loading_speed, loading_table, pipelines_of
from vpetl_mm.measure.videos import codec_of, find_videos

REPO = Path(__file__).parents[2]
CONFIG = 'configs/swin_bapat_hmdb51_b128.py'


@pytest.fixture(scope='module')
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('loading') / 'videos'
    (folder / 'wave').mkdir(parents=True)
    write(folder / 'a b.mp4', 'libx264')
    write(folder / 'wave/c.avi', 'mpeg4')
    (folder / 'notes.txt').write_text('no video')
    return folder


def test_what_is_measured_and_printed(videos, capsys):
    speeds = loading_speed(load_config(REPO / CONFIG), videos, rounds=2)
    assert set(speeds.seconds) == set(speeds.stages) == {OURS, STOCK, SWIN}
    for name, clips in speeds.seconds.items():
        assert [kind for kind, _ in clips] == ['h264 with B-frames, .mp4', 'mpeg4, .avi']
        # seconds against milliseconds of the stages; what lies between them is little
        inside, whole = sum(speeds.stages[name].values()), 1000 * sum(s for _, s in clips) / 2
        assert 0.6 * whole < inside < 1.2 * whole
    lines = loading_table(speeds).splitlines()
    assert len({line.count('|') for line in lines[:5]}) == 1
    kind = next(line for line in lines if line.startswith('| mpeg4, .avi'))
    count, ours, stock, _, ratio = map(float, kind.strip('| ').split('|')[1:])
    assert count == 1 and ratio == pytest.approx(ours / stock, rel=0.02)
    assert ours == pytest.approx(1 / dict(speeds.seconds[OURS])['mpeg4, .avi'], rel=0.01)
    assert [line.split('|')[1].strip() for line in lines[-4:]] == list(STAGES)
    assert re.fullmatch(r'(loading clips: \d+ s\n)?', capsys.readouterr().err)


def test_the_stock_pipeline_has_none_of_ours_and_draws_the_same_frames(videos, tmp_path):
    pipelines = pipelines_of(load_config(REPO / CONFIG))
    assert not {'OpenVideo', 'DecodeVideo'} & {step['type'] for name in (STOCK, SWIN) for step in pipelines[name]}
    assert len(pipelines[OURS]) == len(pipelines[STOCK])
    (tmp_path / 'list.txt').write_text(f'{videos}/a b.mp4 0\n')
    seen = {}
    for name, steps in pipelines.items():
        loader = _Loader(str(tmp_path / 'list.txt'), steps)
        last = loader.data.pipeline.transforms[-1]  # what it gets holds all that was drawn
        last.transform = lambda results, n=name, pack=last.transform: seen.setdefault(n, results) and pack(results)
        load = loader.load(0, seed=5)
        assert load.read and load.seconds > 0
    assert (
        seen[OURS]['frame_inds'].tolist() == seen[STOCK]['frame_inds'].tolist() == seen[SWIN]['frame_inds'].tolist()
    )
    assert seen[OURS]['crop_bbox'].tolist() == seen[STOCK]['crop_bbox'].tolist()


def test_a_video_that_cannot_be_read_is_left_out(videos, tmp_path, capsys):
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    (tmp_path / 'list.txt').write_text(f'{videos}/a b.mp4 0\nbroken.mp4 1\n')
    speeds = loading_speed(load_config(REPO / CONFIG), tmp_path / 'list.txt', rounds=1)
    assert len(speeds.seconds[OURS]) == 1
    assert 'broken.mp4 is left out' in capsys.readouterr().err


def test_folders_and_lists_of_videos(videos):
    names = ['a b.mp4', 'wave/c.avi']
    assert [str(p.relative_to(videos)) for p in find_videos(videos)] == names
    for text in ('a b.mp4 0\nwave/c.avi 1\n', '\na b.mp4\nwave/c.avi\n'):
        (videos.parent / 'list.txt').write_text(text)  # beside videos/, as prepared lists are
        assert [str(p.relative_to(videos)) for p in find_videos(videos.parent / 'list.txt')] == names


@pytest.mark.parametrize(
    ('made', 'rounds', 'said'),
    [
        (None, 1, 'does not exist'),
        ({}, 1, 'no videos in'),
        ({'a.txt': 'missing.mp4 0\n'}, 1, "'missing.mp4 0' names no file"),
        ({'a.txt': f'{"x" * 300}.mp4 0\n'}, 1, "x.mp4 0' names no file"),
        ({'a.txt': '\n'}, 1, 'no videos in'),
        ({'a.mp4': 'no video'}, 0, '--rounds must be at least 1'),
    ],
    ids=['nothing', 'empty', 'missing', 'too long', 'empty list', 'rounds'],
)
def test_wrong_input_is_told(tmp_path, made, rounds, said):
    source = tmp_path / 'videos'
    if made is not None:
        source.mkdir()
        for name, text in made.items():
            (source / name).write_text(text)
        source = next((source / n for n in made if n.endswith('.txt')), source)
    with pytest.raises(UserError, match=said):
        loading_speed(load_config(REPO / CONFIG), source, rounds)


@pytest.mark.parametrize(
    ('kind', 'change', 'said'),
    [
        ('Resize', dict(type='Rezize'), 'Rezize'),
        ('Resize', dict(scal=(224, 224)), 'scal'),
        ('FormatShape', dict(type='Flip'), 'no FormatShape'),
        ('OpenVideo', dict(type='LoadImageFromFile'), 'no OpenVideo'),
    ],
)
def test_what_is_wrong_with_the_config_is_not_blamed_on_a_video(videos, kind, change, said):
    cfg = load_config(REPO / CONFIG)
    step = next(step for step in cfg.train_dataloader.dataset.pipeline if step['type'] == kind)
    step.update(change)
    with pytest.raises(UserError, match=said) as told:
        loading_speed(cfg, videos, rounds=1)
    assert 'a b.mp4' not in str(told.value)


def test_a_video_is_opened_as_a_file_whatever_its_name(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'http:').mkdir()
    shutil.copy(videos / 'a b.mp4', 'http:/a.mp4')
    assert codec_of(Path('http:/a.mp4')) == 'h264 with B-frames, .mp4'


def test_the_command(videos, tmp_path, capsys):
    argv = ['benchmark_loading', REPO / CONFIG, '--rounds', 1, '--videos']
    assert call(*argv, videos) == 0
    assert '| all | 2 |' in capsys.readouterr().out
    (tmp_path / 'a.mp4').write_bytes(b'no video')
    assert call(*argv, tmp_path) == 2
    told = capsys.readouterr()
    assert not told.out and re.fullmatch(r'error: None of the 1 videos can be read.*', told.err.splitlines()[-1])
