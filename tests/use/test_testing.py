"""What a bundle's test reads from files."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image
from tiny import refused

from vpetl_mm.use.bundle.views import from_files


def ran(steps: list[dict], **sample) -> torch.Tensor:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose([TRANSFORMS.build(step) for step in steps])(sample)['inputs']


@pytest.mark.parametrize('to_rgb', [False, True])
def test_a_file_gives_what_its_array_gave(tmp_path, to_rgb):
    """Images of array files are RGB if they stay as they are, and BGR if they are turned; files have either."""
    rgb = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    resize = dict(type='torchvision/Resize', size=16, interpolation='bicubic')
    pipeline = [dict(type='NumpyToPIL', to_rgb=to_rgb), resize, dict(type='PackInputs')]
    expected = ran(pipeline, img=rgb[..., ::-1] if to_rgb else rgb)
    about = SimpleNamespace(is_video=False, name='a', pipeline=pipeline)
    assert torch.equal(ran(from_files(about), img_path=str(tmp_path / 'a.png')), expected)
    about.pipeline = [resize]
    with refused('torchvision/Resize', 'cannot read files'):
        from_files(about)
