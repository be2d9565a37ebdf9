"""Models of transformers as backbones: features, clips as the models want them, and nothing fetched."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import foreign
import pytest
import torch
import transformers
from tiny import randomised, refused
from transformers import AutoConfig, AutoModel

from vpetl_mm import build_model
from vpetl_mm.models.hf_backbone import HFBackbone

# what a model's own head reads: V-JEPA 2's and VideoMAE's take the mean, DINO's, ViT's and TimeSformer's the class
OWN = {
    **dict.fromkeys(('vit', 'timesformer', 'vivit'), lambda out: out.last_hidden_state[:, 0]),
    **dict.fromkeys(('swin', 'videomae', 'vjepa2'), lambda out: out.last_hidden_state.mean(1)),
    **dict.fromkeys(
        ('dinov2', 'dinov3_vit', 'siglip_vision_model', 'siglip2_vision_model'), lambda out: out.pooler_output
    ),
}


def backbone(kind: str = 'dinov2', **options) -> HFBackbone:
    config = foreign.hf_backbone(kind, **options)
    return randomised(HFBackbone(**{k: v for k, v in config.items() if k != 'type'}), std=0.1).eval()


def given_to(kind: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs in the model's own form, one image or frame at a time."""
    if kind == 'siglip2_vision_model':
        processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16, do_rescale=False)
        processor.do_normalize = processor.do_resize = False
        images = [image.numpy() for image in x]
        return dict(processor(images, return_tensors='pt', input_data_format='channels_first'))
    if kind not in foreign.VIDEO:
        return dict(pixel_values=x)
    frames = torch.stack([torch.stack([clip[:, t] for t in range(clip.shape[1])]) for clip in x])
    name = 'pixel_values_videos' if kind == 'vjepa2' else 'pixel_values'
    return {name: frames} | (dict(skip_predictor=True) if kind == 'vjepa2' else {})


@pytest.mark.parametrize('kind', foreign.HF)
def test_features_are_what_the_models_own_head_reads(kind):
    ours = backbone(kind)
    own = AutoModel.from_config(AutoConfig.for_model(kind, **foreign.HF[kind])).eval()
    missing, _ = own.load_state_dict(ours.model.state_dict(), strict=False)
    assert all('pooler' in name for name in missing)  # ViT's, which is drawn at random
    x = torch.rand(2, 3, *([4] if kind in foreign.VIDEO else []), 32, 32)
    with torch.no_grad():
        expected = OWN[kind](own(**given_to(kind, x)))
        seen = ours(x)
    seen = seen[:, :, 0, 0, 0] if kind in foreign.VIDEO else seen[0]
    assert seen.shape == (2, foreign.D)
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('kind', 'leading'), [('dinov2', 1), ('dinov3_vit', 5), ('videomae', 0)])
def test_the_mean_is_that_of_the_patches(kind, leading):
    ours, tokens = backbone(kind, out='mean'), []
    ours.model.register_forward_hook(lambda *given: tokens.append(given[-1].last_hidden_state))
    x = torch.randn(1, 3, *([4] if kind in foreign.VIDEO else []), 32, 32)
    with torch.no_grad():
        seen = ours(x)[0].reshape(-1)
    torch.testing.assert_close(seen, tokens[0][0, leading:].mean(0))


def test_a_video_model_sees_whole_clips_and_an_image_model_frames():
    x = torch.randn(2, 3, 4, 32, 32)
    for kind, frames in (('dinov2', 4), ('vjepa2', 1)):
        ours = backbone(kind)
        with torch.no_grad():
            assert ours(x).shape == (2, foreign.D, frames, 1, 1)
            assert torch.allclose(ours(x.flip(2)), ours(x).flip(2), atol=1e-5) == (kind == 'dinov2')


@pytest.mark.parametrize('kind', foreign.HF)
def test_deltas_train_and_fast_and_checkpointed_are_the_same(kind):
    clips = kind in foreign.VIDEO
    x, states = torch.randn(2, *((1, 3, 4) if clips else (3,)), 32, 32), []
    for fast in (False, True):
        model = foreign.build(dict(foreign.hf_backbone(kind), with_cp=fast), clips=clips, fast=fast)
        for delta in model.plan.deltas():
            randomised(delta)
        foreign.along(model.extract_feat(x)[0 if clips else -1]).backward()
        states.append({n: p.grad for n, p in model.plan.named_parameters() if '.deltas.' in n})
    assert len(states[0]) == 2 * 8
    for name, gradient in states[0].items():
        assert gradient.abs().max() > 1e-4, name
        torch.testing.assert_close(states[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


# Nothing is fetched, and no code of a repository runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder: its config and its image processor, as the Hub has them."""
    config = AutoConfig.for_model('dinov2', **foreign.HF['dinov2']).to_diff_dict()
    (tmp_path / 'config.json').write_text(json.dumps(config))
    processor = transformers.BitImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    processor.save_pretrained(tmp_path)
    return tmp_path


def of_folder(folder: Path, **options) -> dict:
    return foreign.config(dict(type='HFBackbone', model=str(folder)), deltas={}, **options)


def test_a_folder_says_the_model_and_its_inputs(folder):
    model = build_model(of_folder(folder))
    assert model.backbone.config.hidden_size == foreign.D and model.backbone.sides == (32, 32)
    torch.testing.assert_close(model.data_preprocessor.mean.flatten(), torch.tensor([25.5, 51.0, 76.5]))


def test_a_name_is_looked_up_in_the_cache_alone(folder, tmp_path, monkeypatch):
    cache = tmp_path / 'hub'
    commit = cache / 'models--someone--small' / 'snapshots' / ('0' * 40)
    commit.mkdir(parents=True)
    for file in folder.glob('*.json'):
        (commit / file.name).write_bytes(file.read_bytes())
    (commit.parents[1] / 'refs').mkdir()
    (commit.parents[1] / 'refs/main').write_text('0' * 40)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(cache))
    monkeypatch.setattr('socket.socket.connect', lambda *_: pytest.fail('it went to the network'))
    assert build_model(of_folder('someone/small')).backbone.config.hidden_size == foreign.D
    with refused("'someone/other'", 'hf download someone/other config.json'):
        build_model(of_folder('someone/other'))


def test_code_beside_a_config_does_not_run(folder):
    (folder / 'code.py').write_text('raise SystemExit("it ran")')
    config = json.loads((folder / 'config.json').read_text())
    config['auto_map'] = dict(AutoConfig='code.Config', AutoModel='code.Model')
    config['_attn_implementation'] = config['attn_implementation'] = 'someone/kernel'
    (folder / 'config.json').write_text(json.dumps(config))
    model = build_model(of_folder(folder))
    assert type(model.backbone.model) is transformers.Dinov2Model
    assert model.backbone.model.config._attn_implementation == 'sdpa'


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_weights_are_float32_whatever_the_config_says(dtype):
    ours = HFBackbone(config=dict(model_type='dinov2', dtype=dtype, torch_dtype=dtype, **foreign.HF['dinov2']))
    assert {p.dtype for p in ours.parameters()} == {torch.float32}


# What is refused


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(config=dict(model_type='dinov4')), ["'dinov4'", "'dinov2'"]),
        (dict(config=dict(foreign.HF['dinov2'], model_type='bert')), ['Bert', 'place table']),
        (dict(config=dict(foreign.HF['dinov2'], model_type='dinov2', hidden_act='gelou')), ['gelou']),
        (dict(config=None), ['model', 'config']),
        (dict(model='a/b'), ['model', 'config']),
        (dict(model='no such/name', config=None), ["'no such/name'"]),
        (dict(img_size=30), ['30 x 30', '8 x 8', 'img_size']),
        (dict(frames=8), ['frames', 'dinov2']),
        (dict(out='class'), ['out', 'token']),
    ],
    ids=str,
)
def test_what_transformers_does_not_build_is_said(options, said):
    with refused(*said):
        build_model(foreign.config({**foreign.hf_backbone(), **options}, data_preprocessor=foreign.MEAN), meta=True)


@pytest.mark.parametrize(
    ('kind', 'shape', 'said'),
    [
        ('vjepa2', (1, 3, 4, 64, 64), '64 x 64'),
        ('videomae', (1, 3, 8, 32, 32), '8 x 32 x 32'),
        ('videomae', (1, 3, 32, 32), 'clips'),
        ('vit', (1, 3, 64, 64), '64 x 64'),
        ('siglip2_vision_model', (1, 3, 30, 32), '30 x 32'),
    ],
)
def test_inputs_that_the_model_does_not_take_are_refused(kind, shape, said):
    with refused(said):
        backbone(kind)(torch.zeros(shape))


def test_the_frames_of_a_video_model_can_be_set():
    ours = backbone('videomae', frames=8)
    with torch.no_grad():
        assert ours(torch.zeros(1, 3, 8, 32, 32)).shape == (1, foreign.D, 1, 1, 1)


def test_without_an_image_processor_it_says_so(folder):
    for name in ('preprocessor_config.json', 'processor_config.json'):
        (folder / name).unlink(missing_ok=True)
    with refused('preprocessor_config.json', 'data_preprocessor'):
        build_model(of_folder(folder))
    build_model(of_folder(folder, data_preprocessor=foreign.MEAN))


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with refused('pip install', '[hf]'):
        build_model(foreign.config(foreign.hf_backbone()))
