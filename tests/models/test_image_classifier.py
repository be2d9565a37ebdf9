"""mmpretrain's classifier with deltas: losses, predictions, sizes, and both libraries in one process."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import tiny
import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from tiny import HOSTS

from vpetl_mm import UserError, build_model

PATT = dict(patt=dict(type='PATT', d_bottle=2))
IMAGES = pytest.mark.parametrize('name', ['vit', 'vit_layerscale', 'swin2d'])


def samples(labels: list[int]) -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in labels]


@IMAGES
def test_the_loss_is_the_cross_entropy_of_the_logits(name):
    host = HOSTS[name]
    model = host.build(PATT)
    x, labels = host.sample(4), [0, 2, 1, 2]
    losses = model.loss(x, samples(labels))
    expected = torch.nn.functional.cross_entropy(tiny.classify(model, x), torch.tensor(labels))
    torch.testing.assert_close(losses['loss'], expected)
    losses['loss'].backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == tiny.trainable(model)


@IMAGES
def test_predictions_are_the_softmax_of_the_logits(name):
    host = HOSTS[name]
    model = host.build(PATT)
    with torch.no_grad():
        predicted = model.predict(host.sample(3), samples([0, 0, 0]))
        scores = tiny.classify(model, host.sample(3)).softmax(-1)
    torch.testing.assert_close(torch.stack([s.pred_score for s in predicted]), scores)
    assert [int(s.pred_label) for s in predicted] == scores.argmax(-1).tolist()


# Both libraries in one process


def test_in_any_order():
    """Two classes are called VisionTransformer; each model gets that of its own library."""
    library = {name: host.scope for name, host in HOSTS.items()}
    for names in itertools.permutations(('vit', 'videomae', 'swin3d', 'swin2d')):
        models = {n: build_model(HOSTS[n].config(PATT)) for n in names}
        for name, model in models.items():
            assert type(model.backbone).__module__.startswith(f'{library[name]}.')


@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain', 'mmengine'])
@pytest.mark.parametrize('name', HOSTS)
def test_inside_another_scope(name, scope):
    with DefaultScope.overwrite_default_scope(scope):
        model = build_model(HOSTS[name].config(PATT), init_weights=True)
        assert DefaultScope.get_current_instance().scope_name == scope
    assert type(model.backbone).__module__.startswith(f'{HOSTS[name].scope}.')


def test_in_a_fresh_process():
    """With nothing imported before but ours, image first."""
    order = ['vit', 'videomae', 'swin2d', 'swin3d']
    configs = [HOSTS[n].config(PATT) for n in order]
    code = (
        f'from vpetl_mm import build_model; models = [build_model(c) for c in {configs!r}]; '
        'print(*(type(m.backbone).__module__.split(".")[0] for m in models))'
    )
    done = subprocess.run([sys.executable, '-c', code], check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-4:] == [HOSTS[n].scope for n in order]


@pytest.mark.parametrize('name', ['vit', 'videomae'])
def test_the_wrong_librarys_scope_is_said(name):
    """An image ViT's arguments are not a video ViT's."""
    config = HOSTS[name].config(PATT)
    config['default_scope'] = {'mmaction': 'mmpretrain', 'mmpretrain': 'mmaction'}[config['default_scope']]
    with pytest.raises(UserError) as error:
        build_model(config)
    assert len(str(error.value).splitlines()) == 1


# Sizes, to the parameter


def vit_b(video: bool, deltas: dict | None = None, **backbone) -> dict:
    sizes = dict(type='VisionTransformer', img_size=224, patch_size=16)
    petl = dict(deltas=deltas or {}, train=[])
    if video:
        sizes |= dict(embed_dims=768, depth=12, num_heads=12, num_frames=8, tubelet_size=2)
        head = dict(cls_head=dict(type='PETLTokenHead', num_classes=174, in_channels=768))
        model = dict(type='PETLRecognizer3D', backbone=sizes | backbone, petl=petl, base=None, **head)
        return dict(default_scope='mmaction', model=model)
    head = dict(head=dict(type='PETLImageHead', num_classes=100, in_channels=768))
    model = dict(
        type='PETLImageClassifier', backbone=sizes | dict(arch='base') | backbone, petl=petl, base=None, **head
    )
    return dict(default_scope='mmpretrain', model=model)


@pytest.mark.parametrize(
    ('video', 'options', 'size'),
    [(False, {}, 85_798_656), (False, dict(qkv_bias=False), 85_771_008), (True, {}, 86_227_200)],
    ids=['image', 'miil', 'video'],
)
def test_backbone_sizes(video, options, size):
    model = build_model(vit_b(video, **options), meta=True)
    assert sum(p.numel() for p in model.backbone.parameters()) == size
    full = build_model(vit_b(video, **options), {'model.petl.train': ['all']}, meta=True)
    assert full.plan.count()['trainable'] == size + sum(
        p.numel() for p in model.get_submodule(full.head_name).parameters()
    )


@pytest.mark.parametrize('video', [False, True], ids=['image', 'video'])
@pytest.mark.parametrize(
    ('spec', 'count'),
    [
        (dict(type='AdaptMLP', d_bottle=64, source='residual'), 1_189_632),
        *((dict(type='PATT', d_bottle=r, bias='down'), 12 * (768 * r + r + 1536 * r)) for r in (32, 64, 128)),
        (dict(type='Prompt', num_tokens=1), 12 * 768),
        (dict(type='Prompt', num_tokens=1, deep=False), 768),
        (dict(type='LoRA', rank=16), 12 * 2 * 16 * 2 * 768),
        (dict(type='Prefix', num_tokens=16), 12 * (16 * 768 + 3 * 768 * 128 + 128 + 2 * 768)),
    ],
    ids=lambda v: v['type'] if isinstance(v, dict) else None,
)
def test_methods_on_a_vit_b(video, spec, count):
    model = build_model(vit_b(video, dict(mine=spec)), meta=True)
    assert model.plan.count()['trainable'] == model.plan.count()['by']['mine'] == count


def test_fc_norm_of_videomae():
    model = build_model(vit_b(True), {'model.petl.train': ['fc_norm']}, meta=True)
    assert model.plan.count()['trainable'] == 1_536
