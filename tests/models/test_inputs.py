"""How a backbone's inputs are normalised: as its library says, unless the config does."""

from __future__ import annotations

import json

import foreign
import numpy as np
import pytest
import tiny
import transformers
from mmengine.logging import MMLogger

from vpetl_mm import build_model
from vpetl_mm.models.hf_config import inputs_of

# none resizes or crops, so that only the normalisation is left
SAME = dict(do_resize=False, do_center_crop=False)
PROCESSORS = {
    'bit': (transformers.BitImageProcessor, dict(image_mean=[0.48, 0.45, 0.4], image_std=[0.2, 0.3, 0.4])),
    'vit': (transformers.ViTImageProcessor, {}),
    'unscaled': (transformers.ViTImageProcessor, dict(do_rescale=False, image_mean=[1, 2, 3], image_std=[4, 5, 6])),
    'scaled': (transformers.ViTImageProcessor, dict(do_normalize=False)),
    'offset': (transformers.VivitImageProcessor, {}),
    'video': (transformers.VideoMAEImageProcessor, {}),
}


@pytest.mark.parametrize('name', PROCESSORS)
def test_a_processors_normalisation_is_read_from_its_file(name, tmp_path):
    cls, options = PROCESSORS[name]
    processor = cls(**SAME, **options)
    processor.save_pretrained(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='vit')))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    given = [[pixels, pixels]] if name in ('offset', 'video') else [pixels]
    seen = processor(given, return_tensors='np', **SAME)['pixel_values'].reshape(-1, 3, 8, 8)[0]
    read = inputs_of(str(tmp_path), None)
    ours = (pixels - np.array(read.mean)) / np.array(read.std)
    np.testing.assert_allclose(seen, ours.transpose(2, 0, 1), rtol=1e-4, atol=1e-4)


@pytest.fixture
def said(caplog):
    logger = MMLogger.get_instance('inputs')
    logger.addHandler(caplog.handler)
    return caplog


@pytest.mark.parametrize(('mean', 'lines'), [([123.675, 116.28, 103.53], 0), ([127.5] * 3, 1), ([0.0] * 3, 1)])
def test_a_config_that_says_otherwise_is_followed_with_one_line(said, mean, lines):
    given = dict(mean=mean, std=[58.395, 57.12, 57.375])
    model = build_model(foreign.config(foreign.hf_backbone(), data_preprocessor=given), meta=False)
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(mean)
    warned = [r.getMessage() for r in said.records if 'normalises' in r.getMessage()]
    assert len(warned) == lines and all('123.675' in line and '\n' not in line for line in warned)


def test_the_other_options_of_a_preprocessor_stay():
    cfg = foreign.config(foreign.hf_backbone(), data_preprocessor=dict(to_rgb=True))
    model = build_model(cfg)
    assert model.data_preprocessor.to_rgb and model.data_preprocessor.std is not None


def test_a_backbone_of_the_host_libraries_is_left_as_it_was():
    assert not build_model(tiny.config()).data_preprocessor._enable_normalize


def test_clips_and_images_get_the_preprocessor_of_their_library():
    for clips, shape in ((False, (3, 1, 1)), (True, (3, 1, 1, 1))):
        model = build_model(foreign.config(foreign.timm_backbone(), clips=clips))
        assert tuple(model.data_preprocessor.mean.shape) == shape
