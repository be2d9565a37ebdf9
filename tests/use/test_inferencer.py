"""Predictions are the scores of tools/test.py, whatever the input is given as."""

from __future__ import annotations

import csv
import shutil
from itertools import zip_longest
from pathlib import Path

import numpy as np
import predicting
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from tiny import refused

from tools import call
from vpetl_mm import PETLInferencer
from vpetl_mm.datasets.video_reader import VideoReader
from vpetl_mm.use.predict.precision import precision_on

REAL = ('ssv2_*.mp4', 'TrumanShow_*.avi', '*.mkv', 'v_SoccerJuggling_g23_c01.avi')  # VP9, two MPEG-4, H.264


@pytest.fixture(scope='module')
def inferencer(video_bundle) -> PETLInferencer:
    return PETLInferencer(video_bundle, dtype='float32', show_progress=False)


def scores_of(told: dict) -> list[float]:
    """The scores of the listed classes, in the order of the labels."""
    return [entry['score'] for entry in sorted(told['topk'], key=lambda entry: entry['label'])]


def test_scores_are_those_of_the_test_for_every_clip_and_size_of_batch(video_run, inferencer, drawn_clips, elsewhere):
    """Real clips of mixed sizes, rates and containers among them; six views of each are averaged."""
    real = [path for name in REAL for path in predicting.CLIPS.glob(name)]
    clips = [str(path) for pair in zip_longest(drawn_clips, real) for path in pair if path]
    Path('test.txt').write_text(''.join(f'{path} 0\n' for path in clips))
    assert call('test', *video_run[:2], '--dump', 'p.csv') == 0
    rows = list(csv.DictReader(Path('p.csv').read_text().splitlines()))
    expected = np.array([[float(v) for v in row['scores'].split()] for row in rows])
    assert [row['file'] for row in rows] == clips and np.ptp(expected, 0).min() > 0.01
    for size in (1, 20):
        found = inferencer(clips, batch_size=size, topk=3)['predictions']
        assert [told['input'] for told in found] == clips
        np.testing.assert_allclose([scores_of(told) for told in found], expected, atol=1e-5)
        shares = [told['probability'] for told in found]
        np.testing.assert_allclose(shares, softmax(expected, 1).max(1), atol=1e-5)
        assert [told['label'] for told in found] == expected.argmax(1).tolist()
        assert all(told['name'] == predicting.CLASSES[told['label']] for told in found)


def test_an_array_and_a_tensor_are_the_file_that_they_come_from(inferencer, drawn_clips):
    reader = VideoReader(drawn_clips[0])
    array = np.stack(reader.frames(range(len(reader))))
    expected, *found = inferencer(
        [drawn_clips[0], array, torch.from_numpy(array), torch.from_numpy(array).permute(0, 3, 1, 2)]
    )['predictions']
    for told in found:
        assert told['input'] is None and told['name'] == expected['name']
        assert scores_of(told) == pytest.approx(scores_of(expected), abs=1e-6)
    assert scores_of(inferencer(array[..., ::-1])['predictions'][0]) != pytest.approx(scores_of(expected), abs=1e-3)


def test_fast_views_are_one_central_view(video_bundle, drawn_clips):
    fast = PETLInferencer(video_bundle, views='fast', dtype='float32', show_progress=False)
    seen = []
    fast.model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    fast(str(drawn_clips[0]))
    assert fast.views == 1 and seen == [(1, 3, 4, 32, 32)]


@pytest.mark.parametrize(
    'array',
    [
        np.zeros((4, 8, 8, 3), np.float32),
        torch.zeros(4, 8, 8, 3, dtype=torch.bfloat16),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 4, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((4, 8, 8, 4), np.uint8),
    ],
)
def test_an_array_that_could_mean_anything_is_refused(inferencer, array):
    with refused('a video is (T, H, W, 3) or (T, 3, H, W), uint8', str(tuple(array.shape))):
        inferencer(array)


def test_what_cannot_be_read_has_its_place_and_its_reason(inferencer, drawn_clips, tmp_path):
    (tmp_path / 'empty.mp4').touch()
    found = inferencer([drawn_clips[0], tmp_path / 'empty.mp4', drawn_clips[0]])['predictions']
    assert found[0] == found[2] and 'label' in found[0]
    assert found[1]['input'] == str(tmp_path / 'empty.mp4') and found[1]['error']


def test_data_samples(inferencer, drawn_clips):
    told = inferencer([str(drawn_clips[0])])['predictions'][0]
    (sample,) = inferencer([str(drawn_clips[0])], return_datasamples=True)['predictions']
    assert sample.pred_score[told['label']] == pytest.approx(told['score']) and sample.pred_label == told['label']


def test_an_image_has_the_same_scores_from_an_array_and_from_a_file(tmp_path):
    """Whichever of both the test pipeline begins with; red is red in all."""
    picture = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    picture[..., 2] //= 4
    Image.fromarray(picture).save(tmp_path / 'a.png')
    shutil.copy(tmp_path / 'a.png', tmp_path / 'b.png')
    scores = []
    for load in (predicting.ARRAYS, predicting.FILES):
        bundle = predicting.made(tmp_path, predicting.IMAGES, load=load)[-1]
        inferencer = PETLInferencer(bundle, dtype='float32', show_progress=False)
        bundle.unlink()
        tensor = torch.from_numpy(picture)
        found = inferencer([str(tmp_path / 'a.png'), picture, tensor, tensor.permute(2, 0, 1)], topk=3)['predictions']
        scores += [scores_of(told) for told in found]
        assert [told['input'] for told in inferencer(str(tmp_path))['predictions']] == [
            str(tmp_path / name) for name in ('a.png', 'b.png')
        ], 'of a folder, the images'
        other = scores_of(inferencer(picture[..., ::-1], topk=3)['predictions'][0])
        assert other != pytest.approx(scores[0], abs=1e-3), 'colours matter'
    assert all(one == pytest.approx(scores[0], abs=1e-6) for one in scores)
    assert sum(scores[0]) == pytest.approx(1)


def test_the_precision_follows_the_hardware(monkeypatch):
    for there, auto in ((True, 'bfloat16'), (False, 'float32')):
        monkeypatch.setattr('vpetl_mm.use.predict.precision.has_bfloat16', lambda there=there: there)
        assert precision_on('cpu')[0] is there and precision_on('cpu')[1].startswith(auto)
        assert precision_on('cpu', 'float32') == (False, 'float32')
        assert precision_on('cpu', 'bfloat16')[0]
    with refused('dtype', 'half'):
        precision_on('cpu', 'half')


def test_bfloat16_is_near_float32(video_bundle, inferencer, drawn_clips):
    low = PETLInferencer(video_bundle, dtype='bfloat16', show_progress=False)
    one, two = (i(str(drawn_clips[0]), topk=3)['predictions'][0] for i in (low, inferencer))
    assert one['score'] == pytest.approx(two['score'], rel=0.1) and one['score'] != two['score']
