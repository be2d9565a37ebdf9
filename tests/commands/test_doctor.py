"""tools/doctor.py on a good experiment, and on spoilt ones, each of which is told for its own reason alone."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import foreign
import numpy as np
import pytest
import small_vtab
import torch
from mmengine.registry import MODELS
from PIL import Image
from torch import nn

import tools
from vpetl_mm.config import load_config
from vpetl_mm.datasets.demo_clips import make_demo_clips
from vpetl_mm.petl import LoRA

CONFIG = """\
_base_ = '{repo}/configs/demo_lora.py'
_data = dict(data_prefix=dict(video='{root}'), metainfo=dict(classes='{root}/target_classes.txt'))
_data.update(serialize_data=False)
train_dataloader = dict(batch_size=4, dataset=dict(ann_file='{root}/target_train.txt', **_data))
test_dataloader = dict(dataset=dict(ann_file='{root}/target_test.txt', **_data))
model = dict(
    base=None,
    backbone=dict(arch=dict(embed_dims=8, depths=[1, 1], num_heads=[2, 2])),
    cls_head=dict(in_channels=16),
    petl=dict(deltas=dict(lora=dict(rank=2))),
)
auto_scale_lr = dict(enable=True, base_batch_size=16)
"""
CHECKS = ['labels', 'disjoint', 'readable', 'zero start', 'start', 'gradients', 'frozen', 'learning rate', 'cost']


@pytest.fixture(scope='module')
def clips(tmp_path_factory) -> Path:
    """24 training and 8 test clips."""
    root = tmp_path_factory.mktemp('clips')
    make_demo_clips(root, dict(target_train=24, target_test=8), progress=False)
    return root


@pytest.fixture
def video(clips, tmp_path, monkeypatch) -> Path:
    """LoRA on a small Video Swin, and clips of its own, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clips, tmp_path / 'data')
    path = tmp_path / 'lora.py'
    path.write_text(CONFIG.format(repo=tools.REPO, root=tmp_path / 'data'))
    return path


@pytest.fixture
def image(tmp_path, monkeypatch) -> Path:
    """Prompts in a small ViT, and images of its own."""
    monkeypatch.chdir(tmp_path)
    small_vtab.make_task(tmp_path / 'kitti')
    return small_vtab.write_config(tmp_path / 'kitti', tmp_path / 'prompts.py', 'vpt')


@pytest.fixture
def examined(capsys):
    """Runs the doctor on an experiment: the exit status, and check -> its verdict and what is said, details too."""

    def run(config: Path, *argv: str, samples: int = 8) -> tuple[int, dict[str, tuple[str, str]]]:
        before = tools.snapshot()
        status = tools.call('doctor', config, '--samples', samples, *argv)
        assert tools.snapshot() == before, 'something was written'
        told, error = capsys.readouterr()
        assert status < 2, error
        told = re.findall(r'^(ok|note|WRONG) +(.{13})  (.*(?:\n {7}- .*)*)', told, re.MULTILINE)
        return status, {check.strip(): (state, said) for state, check, said in told}

    return run


def wrong_in(told: dict[str, tuple[str, str]]) -> dict[str, str]:
    """The checks that found something wrong, and what they say."""
    return {check: said for check, (state, said) in told.items() if state == 'WRONG'}


def options(*pairs: str) -> list[str]:
    """Options of the config."""
    return ['--cfg-options', *pairs]


def test_a_good_experiment_on_clips(video, examined):
    status, told = examined(video)
    assert status == 0 and list(told) == CHECKS and {state for state, _ in told.values()} == {'ok'}, told
    assert '24 in train, 8 in test' in told['labels'][1]
    assert 'ln(8) is 2.079' in told['start'][1]
    # A and B of q and v in a block of width 8 and in one of 16, and the head
    trains = 2 * 2 * 2 * 8 + 2 * 2 * 2 * 16 + 8 * 16 + 8
    assert f'all 10 trained tensors, {trains} parameters' in told['gradients'][1]
    rate = load_config('demo_lora').optim_wrapper.optimizer.lr
    assert told['learning rate'][1].startswith(f'{rate / 4:g} ({rate:g} x 4 / 16)')
    assert '7 epochs of 6 steps' in told['cost'][1]


def test_a_good_experiment_on_images(image, examined):
    """Behind a BatchNorm, whose statistics change, as they should."""
    status, told = examined(image, *options('train_dataloader.batch_size=32', 'model.head.bn=True'))
    assert status == 0 and list(told) == CHECKS and not wrong_in(told), told
    assert '3 statistics of BatchNorm' in told['frozen'][1] and 'ln(4) is 1.386' in told['start'][1]


def test_an_adapter_that_no_gradient_reaches(video, examined):
    """The head reads class tokens alone, behind the last block."""
    backbone = dict(foreign.timm_backbone(), _delete_=True)
    deltas = "dict(lora=None, st=dict(type='STAdapter', at='between', d_bottle=4))"
    text = f'model.update(backbone={backbone}, petl=dict(deltas={deltas}), cls_head=dict(in_channels=32))\n'
    video.write_text(video.read_text() + text)
    status, told = examined(video)
    assert status == 1 and wrong_in(told).keys() == {'gradients'}, told
    count = 2 * 32 * 4 + 32 + (3 + 2) * 4
    said, where = wrong_in(told)['gradients'].split('\n')
    assert said == f'never reach {count} parameters of st (of {2 * count})'
    assert 'blocks.1.deltas.st: ' in where and f'{count} parameters' in where


def test_a_test_clip_under_another_name_in_the_training_list(video, examined):
    copy = Path('data/clips/target_train/new.mp4')
    copy.write_bytes(Path('data/clips/target_test/00003.mp4').read_bytes())
    with open('data/target_train.txt', 'a') as stream:
        stream.write('clips/target_train/new.mp4 3\n')
    status, told = examined(video)
    assert status == 1 and wrong_in(told).keys() == {'disjoint'}, told
    assert all(f'{name}.mp4' in wrong_in(told)['disjoint'] for name in ('target_train/new', 'target_test/00003'))


def test_a_clip_in_both_lists_is_found_without_reading_any(video, examined):
    with open('data/target_train.txt', 'a') as stream:
        stream.write('clips/target_test/00003.mp4 3\n')
    status, told = examined(video, '--hash', '0', '--steps', '1', samples=1)
    assert status == 1 and wrong_in(told).keys() == {'disjoint'} and 'are one file' in wrong_in(told)['disjoint']


def test_a_label_that_the_head_has_no_class_for(video, examined):
    """The rest of the list is looked at all the same."""
    lines = Path('data/target_train.txt').read_text().splitlines()
    lines[4] = f'{lines[4].split()[0]} 8'
    Path('data/target_train.txt').write_text('\n'.join(lines) + '\n')
    status, told = examined(video)
    assert status == 1 and list(told) == CHECKS and wrong_in(told).keys() == {'labels'}, told
    assert 'target_train.txt, line 5: label 8 is outside' in wrong_in(told)['labels']


def test_lists_of_more_classes_than_the_head_has(video, examined):
    status, told = examined(video, *options('model.cls_head.num_classes=7'))
    assert status == 1 and wrong_in(told).keys() == {'labels'} and told['steps'][0] == 'note', told
    assert '3 of 24 labels in train are outside 0 to 6, such as 7 of' in wrong_in(told)['labels']


def test_a_clip_that_cannot_be_read(video, examined):
    Path('data/clips/target_train/00003.mp4').write_bytes(b'no video')
    status, told = examined(video, samples=64)
    assert status == 1 and wrong_in(told).keys() == {'readable'}, told
    assert '1 of 24 in train (4.2%)' in wrong_in(told)['readable'] and '00003.mp4' in wrong_in(told)['readable']
    allowed = options('default_hooks.unreadable_video.max_share=0.1')
    status, told = examined(video, *allowed, '--steps', '1', samples=64)
    assert status == 0 and told['readable'][0] == 'note'


def test_an_image_that_cannot_be_read(image, examined):
    """The first, at which training would not even begin."""
    Path('kitti/images/train800/0.png').write_bytes(b'no image')
    status, told = examined(image)
    assert status == 1 and list(told) == CHECKS and wrong_in(told).keys() == {'readable'}, told
    assert '1 of 32 in train' in wrong_in(told)['readable'] and 'train800/0.png' in wrong_in(told)['readable']


def test_images_of_the_test_list_in_the_training_list(image, examined):
    """Of 6 test images 2, one under another name; a third has the size of one, and other content."""
    shutil.copyfile('kitti/images/test/0.png', 'kitti/images/train800/0.png')
    Path('kitti/images/train800/1.png').unlink()
    Path('kitti/images/train800/1.png').symlink_to(Path('kitti/images/test/1.png').absolute())
    array = np.random.default_rng(5).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    for value, name in ((array, 'test/2'), (255 - array, 'train800/2')):
        Image.fromarray(value).save(f'kitti/images/{name}.bmp')
        shutil.move(f'kitti/images/{name}.bmp', f'kitti/images/{name}.png')
    status, told = examined(image)
    assert status == 1 and wrong_in(told).keys() == {'disjoint'}, told
    assert wrong_in(told)['disjoint'].startswith('2 samples are in two lists')
    assert 'test/2.png' not in wrong_in(told)['disjoint']


@pytest.mark.parametrize(
    ('rate', 'said'), [('1e30', '1e+30 (not scaled) is too high'), ('0', 'nothing would change')]
)
def test_a_learning_rate_that_cannot_be_right(video, examined, rate, said):
    """No adapter is called dead: what is behind a zero gets its gradient all the same."""
    status, told = examined(video, *options(f'optim_wrapper.optimizer.lr={rate}', 'auto_scale_lr.enable=False'))
    assert status == 1 and wrong_in(told).keys() == {'learning rate'} and said in told['learning rate'][1], told
    if rate != '0':
        first = float(re.search(r'the loss on one batch goes ([\d.]+), nan, nan', told['learning rate'][1])[1])
        assert math.isclose(first, float(re.search(r'loss ([\d.]+)', told['start'][1])[1]), abs_tol=5e-3)


class Scribbling(LoRA):
    """Writes into the bias of its host in training."""

    def update(self, weight, bias):
        if self.training:
            with torch.no_grad():
                bias.add_(1e-3)
        return super().update(weight, bias)


class Loud(LoRA):
    """Says that it starts at the plain backbone, and does not."""

    def reset_parameters(self):
        super().reset_parameters()
        for b in self.B.values():
            nn.init.normal_(b.weight)


@pytest.mark.parametrize(
    ('kind', 'check', 'said'),
    [
        (Scribbling, 'frozen', '2 frozen tensors changed in 3 steps'),
        (Loud, 'zero start', 'lora should start at the plain backbone'),
    ],
)
def test_a_method_that_does_not_do_what_it_says(video, examined, kind, check, said):
    MODELS.register_module(module=kind, force=True)
    status, told = examined(video, *options(f'model.petl.deltas.lora.type={kind.__name__}'))
    assert status == 1 and wrong_in(told).keys() == {check} and wrong_in(told)[check].startswith(said), told
    if kind is Scribbling:
        assert 'backbone.layers.0.blocks.0.attn.qkv.bias' in wrong_in(told)['frozen']


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        (options('train_dataloader.dataset.ann_file=gone.txt'), 'gone.txt'),
        (options('model.petl.deltas.lora.rank=0'), 'rank must be'),
        (['--steps', '0'], '--steps'),
        (['--hash', '-1'], '--hash'),
    ],
)
def test_what_cannot_run_at_all_is_refused(video, capsys, argv, said):
    assert said in tools.refused(capsys, 'doctor', video, *argv)
