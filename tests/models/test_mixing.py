"""Mixup and CutMix on clips and on images: classes, the meta device, and that inputs and labels are mixed alike."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from mmaction.structures import ActionDataSample
from mmpretrain.structures import DataSample

from vpetl_mm import UserError, build_model

VIDEO = {
    'mixup': dict(type='MixupBlending', alpha=0.8),
    'cutmix': dict(type='CutmixBlending', alpha=1.0),
    'both': dict(type='RandomBatchAugment', augments=[dict(type='MixupBlending'), dict(type='CutmixBlending')]),
}
IMAGES = {
    'mixup': dict(augments=dict(type='Mixup', alpha=0.8)),
    'cutmix': dict(augments=dict(type='CutMix', alpha=1.0)),
    'both': dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
}


def mixing(name: str, kind: str, **options: Any) -> dict[str, Any]:
    """The config of a small model that mixes; ``options`` of what needs ``num_classes``."""
    host = tiny.HOSTS[name]
    config = host.config(dict(lora=dict(type='LoRA', rank=2)))
    if host.scope == 'mmaction':
        blending = {**VIDEO[kind], **({} if kind == 'both' else options)}
        config['model']['data_preprocessor'] = dict(
            type='ActionDataPreprocessor', format_shape='NCTHW', blending=blending
        )
    else:
        config['model']['data_preprocessor'] = dict(batch_augments=IMAGES[kind], **options)
    return config


@pytest.mark.parametrize('kind', VIDEO)
@pytest.mark.parametrize('name', ['swin3d', 'videomae', 'vit', 'swin2d'])
def test_inputs_and_labels_are_mixed_alike_and_train(name, kind):
    host = tiny.HOSTS[name]
    build_model(mixing(name, kind), meta=True)  # as a run looks at it first
    model = build_model(mixing(name, kind), init_weights=True).train()
    # every pixel of sample i is i, so that the mean of a mixed one tells what it is made of
    x = torch.arange(3.0).view(-1, *[1] * len(host.size)).expand(-1, *host.size).clone()
    video = host.scope == 'mmaction'
    kind_of_sample = ActionDataSample if video else DataSample
    samples = [kind_of_sample().set_gt_label(i) for i in range(3)]
    data = model.data_preprocessor(dict(inputs=[*(x.unsqueeze(1) if video else x)], data_samples=samples), True)
    labels = torch.stack([s.gt_label if video else s.gt_score for s in data['data_samples']])
    torch.testing.assert_close(labels.sum(1), torch.ones(3))
    torch.testing.assert_close(data['inputs'].flatten(1).mean(1), labels @ torch.arange(3.0))
    losses = model(**data, mode='loss')
    loss = sum(v for k, v in losses.items() if 'loss' in k)
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize('name', ['swin3d', 'vit'])
def test_another_number_of_classes_is_refused(name):
    build_model(mixing(name, 'mixup', num_classes=3))
    with pytest.raises(UserError, match='mixes labels of 4 classes, and the head has 3'):
        build_model(mixing(name, 'mixup', num_classes=4))


@pytest.mark.parametrize('alpha', [-1.0, 0.0, 'abc'])
def test_a_wrong_distribution_is_said_before_a_run(alpha):
    config = mixing('swin3d', 'mixup', alpha=alpha)
    with pytest.raises(UserError, match=r'blending\.alpha must be a number above 0'):
        build_model(config, meta=True)


def test_images_by_train_cfg():
    config = tiny.HOSTS['vit'].config()
    config['model']['train_cfg'] = IMAGES['mixup']
    assert build_model(config).data_preprocessor.num_classes == 3
