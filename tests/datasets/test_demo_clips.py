"""The demo clips: what is written, when, and that one frame does not give the class away."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import decord
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from vpetl_mm.datasets import demo_clips
from vpetl_mm.datasets.demo_clips import DOMAINS, digit_pools, draw_clip, make_demo_clips, trajectory
from vpetl_mm.errors import UserError

COUNTS = {'source_train': 24, 'target_train': 16, 'target_val': 8}


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()}


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('demo')
    make_demo_clips(root, COUNTS, seed=3, workers=2, progress=False)
    return root


def test_lists_name_existing_clips_with_balanced_labels(made):
    for split, count in COUNTS.items():
        lines = [line.split() for line in (made / f'{split}.txt').read_text().splitlines()]
        assert lines[0] == [f'clips/{split}/00000.mp4', '0']
        assert len(lines) == count
        assert all((made / path).is_file() for path, _ in lines)
        classes = len(DOMAINS[split.split('_')[0]])
        assert np.bincount([int(label) for _, label in lines]).tolist() == [count // classes] * classes


def test_nothing_else_is_written(made):
    lists = {f'{split}.txt' for split in COUNTS} | {'source_classes.txt', 'target_classes.txt'}
    assert {p.name for p in made.iterdir()} == lists | {'clips', 'demo_clips.json'}
    for domain, names in DOMAINS.items():
        assert (made / f'{domain}_classes.txt').read_text().splitlines() == list(names)
        assert len({*names}) == dict(source=12, target=8)[domain]


def test_decord_reads_eight_frames_close_to_what_was_drawn(made, tmp_path):
    reader = decord.VideoReader(str(made / 'clips/target_train/00005.mp4'), num_threads=1)
    assert reader.get_batch(range(len(reader))).shape == (8, 32, 32, 3)
    rng = np.random.default_rng(0)
    drawn = draw_clip(demo_clips.digit_images()[0], trajectory('target', 4, rng), rng)
    demo_clips.write_clip(tmp_path / 'clip.mp4', drawn)
    read = decord.VideoReader(str(tmp_path / 'clip.mp4'), num_threads=1).get_batch(range(8)).asnumpy()
    assert np.abs(read.astype(int) - drawn).mean() < 5


def test_seed_alone_decides_the_clips(made, tmp_path):
    make_demo_clips(tmp_path / 'alone', COUNTS, seed=3, workers=1, progress=False)
    assert files(tmp_path / 'alone') == files(made)
    fewer = {'target_val': 8}
    make_demo_clips(tmp_path / 'fewer', fewer, seed=3, workers=1, progress=False)
    make_demo_clips(tmp_path / 'other', fewer, seed=4, workers=1, progress=False)
    clip = 'clips/target_val/00000.mp4'
    assert (tmp_path / 'fewer' / clip).read_bytes() == (made / clip).read_bytes()
    assert (tmp_path / 'other' / clip).read_bytes() != (made / clip).read_bytes()


def test_cluttered_clips_are_others_without_a_clock(made, tmp_path):
    make_demo_clips(tmp_path, {'target_val': 8}, seed=3, progress=False, clutter=True)
    light = {}
    for name, root in dict(plain=made, cluttered=tmp_path).items():
        clips = [decord.VideoReader(str(root / f'clips/target_val/{i:05d}.mp4')) for i in range(8)]
        frames = np.stack([clip.get_batch(range(8)).asnumpy() for clip in clips]).astype(float)
        light[name] = np.median(frames, axis=(2, 3, 4)).mean(0)  # of the background, by frame
    assert light['plain'][7] - light['plain'][0] > 50
    assert abs(light['cluttered'][7] - light['cluttered'][0]) < 5
    assert (tmp_path / 'target_val.txt').read_text() == (made / 'target_val.txt').read_text()


def test_finished_is_left_alone_and_other_settings_are_made_again(tmp_path):
    make_demo_clips(tmp_path, {'source_test': 8, 'target_test': 8}, progress=False)
    clip = tmp_path / 'clips/source_test/00000.mp4'
    clip.write_bytes(b'mine')
    make_demo_clips(tmp_path, {'target_test': 8, 'source_test': 8}, progress=False)
    assert clip.read_bytes() == b'mine'
    make_demo_clips(tmp_path, {'source_test': 9}, progress=False)
    assert clip.read_bytes() != b'mine'
    assert not (tmp_path / 'target_test.txt').exists()
    assert not (tmp_path / 'clips/target_test').exists()


@pytest.mark.parametrize('workers', [1, 2])
def test_interrupted_is_made_again(tmp_path, monkeypatch, workers):
    write = demo_clips.write_clip

    def interrupted(path: Path, frames: np.ndarray) -> None:
        if path.stem == '00003':
            raise RuntimeError('the disk is full')
        write(path, frames)

    with monkeypatch.context() as patch:
        patch.setattr(demo_clips, 'write_clip', interrupted)
        with pytest.raises(RuntimeError, match='disk is full'):
            make_demo_clips(tmp_path, {'source_test': 8}, workers=workers, progress=False)
    assert not (tmp_path / 'demo_clips.json').exists()
    make_demo_clips(tmp_path, {'source_test': 8}, workers=workers, progress=False)
    assert len(list((tmp_path / 'clips/source_test').iterdir())) == 8
    assert json.loads((tmp_path / 'demo_clips.json').read_text())['format'] == demo_clips.FORMAT


def test_broken_state_counts_as_unfinished(tmp_path):
    (tmp_path / 'demo_clips.json').write_text('{"format": ')
    make_demo_clips(tmp_path, {'source_test': 1}, workers=1, progress=False)
    assert (tmp_path / 'source_test.txt').is_file()


@pytest.mark.parametrize('counts', [{'source_tset': 8}, {'source_test': 0}])
def test_wrong_counts_write_nothing(tmp_path, counts):
    with pytest.raises(UserError, match='source_test'):
        make_demo_clips(tmp_path, counts, progress=False)
    assert not list(tmp_path.iterdir())


def test_no_digit_image_is_in_two_splits():
    pools = digit_pools(0)
    assert sum(map(len, pools.values())) == 1797
    assert min(map(len, pools.values())) > 50
    for one, other in combinations(pools.values(), 2):
        assert not set(one) & set(other)


def test_a_source_digit_goes_one_way_and_then_another():
    rng = np.random.default_rng(0)
    for label, name in enumerate(DOMAINS['source']):
        first, *_, last = np.diff(trajectory('source', label, rng), axis=0)
        ways = [
            max(('east', x), ('west', -x), ('south', y), ('north', -y), key=lambda way: way[1])[0]
            for x, y in (first, last)
        ]
        assert name == (ways[0] if ways[0] == ways[1] else '_then_'.join(ways))
        assert np.hypot(*first) == pytest.approx(np.hypot(*last)) and 1.4 <= np.hypot(*first) <= 3


def paths(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Target trajectories [count, 8, 2] in pixels, and labels [count]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 8
    return np.stack([trajectory('target', label, rng) for label in labels]), labels


def accuracy(features, data: tuple, held_out: tuple) -> float:
    """Top-1 in percent of a quadratic classifier of ``features(data)`` on ``held_out``."""
    model = make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression(max_iter=1000))
    model.fit(features(data[0]), data[1])
    return 100 * model.score(features(held_out[0]), held_out[1])


def test_time_order_separates_the_target_classes_and_one_position_does_not():
    train, test = paths(1600, seed=0), paths(1600, seed=1)
    assert accuracy(lambda path: np.diff(path, axis=1).reshape(len(path), -1), train, test) > 95
    for frame in (0, 3, 7):
        assert accuracy(lambda path: path[:, frame] % 32, train, test) < 17  # noqa: B023


def test_one_drawn_frame_does_not_give_the_class_away():
    rng = np.random.default_rng(0)
    centres, labels = paths(800, seed=0)
    digits = demo_clips.digit_images()[rng.integers(1797, size=800)]
    frames = [draw_clip(digit, path, rng)[4] for digit, path in zip(digits, centres, strict=True)]
    flat = np.reshape(frames, (800, -1)) / 255
    model = LogisticRegression(C=0.01).fit(flat[:400], labels[:400])
    assert 100 * model.score(flat[400:], labels[400:]) < 20
