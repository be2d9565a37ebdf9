"""PETLRecognizer3D as a model of mmaction2: losses, predictions, its arguments and its initialisation."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from mmaction.models.recognizers import Recognizer3D
from mmaction.structures import ActionDataSample
from mmengine.registry import MODELS

from vpetl_mm import UserError, build_model
from vpetl_mm.models.recognizer import PETLRecognizer3D
from vpetl_mm.petl import Delta

PATT = dict(type='PATT', d_bottle=2)
ADAPTER = dict(type='AdaptMLP', d_bottle=2)


def samples(*labels: int) -> list[ActionDataSample]:
    return [ActionDataSample().set_gt_label(label) for label in labels]


def views(batch: int = 2, n: int = 1) -> torch.Tensor:
    return tiny.clip(batch * n).unflatten(0, (batch, n))


def test_is_a_recognizer_of_mmaction2():
    assert issubclass(PETLRecognizer3D, Recognizer3D)
    assert MODELS.get('PETLRecognizer3D') is PETLRecognizer3D


def test_loss_is_the_cross_entropy_of_the_logits():
    model = tiny.tiny(dict(patt=PATT))
    losses = model(views(), samples(2, 0), mode='loss')
    expected = torch.nn.functional.cross_entropy(tiny.logits(model, tiny.clip()), torch.tensor([2, 0]))
    torch.testing.assert_close(losses['loss_cls'], expected)


def test_predictions_average_the_views_logits():
    model = tiny.tiny(dict(patt=PATT))
    with torch.no_grad():
        predicted = model(views(2, 3), samples(0, 0), mode='predict')
        expected = tiny.logits(model, tiny.clip(6)).view(2, 3, -1).mean(1)
    torch.testing.assert_close(torch.stack([s.pred_score for s in predicted]), expected)
    assert [s.pred_label.item() for s in predicted] == expected.argmax(-1).tolist()


@pytest.mark.parametrize('attention', [tiny.HOST, tiny.FAST], ids=['host', 'fast'])
def test_train_step_under_autocast(attention):
    model = build_model(tiny.config(dict(patt=PATT, adapter=ADAPTER), attention=attention), init_weights=True)
    model.train()
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(views(), samples(1, 2), mode='loss')['loss_cls']
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


# petl and base must be there, and be right


@pytest.mark.parametrize('missing', ['petl', 'base'])
def test_petl_and_base_must_be_written_out(missing):
    cfg = tiny.config()
    del cfg['model'][missing]
    with pytest.raises((TypeError, UserError), match=missing):
        build_model(cfg)


@pytest.mark.parametrize(
    ('base', 'said'),
    [
        ('weights.pth', ['model.base', 'file', "'weights.pth'"]),
        ({}, ['model.base', 'file']),
        (dict(file=''), ['model.base', 'file']),
        (dict(url='http://x'), ['model.base', 'file']),
        (dict(file='a.pth', sha='0'), ["'sha'", 'sha256', 'file', 'url', 'convert']),
        (dict(file='a.pth', convert='swin'), ["'swin'", 'swin2d', 'video_swin']),
    ],
    ids=str,
)
def test_wrong_base_is_said(base, said):
    with tiny.refused(*said):
        build_model(tiny.config(base=base))


PRETRAINED = dict(type='Pretrained', checkpoint='x.pth')


@pytest.mark.parametrize(
    'options', [dict(pretrained='x.pth'), dict(init_cfg=PRETRAINED), dict(init_cfg=[PRETRAINED])], ids=str
)
def test_weights_have_one_source(options):
    with tiny.refused('base'):
        build_model(tiny.config(**options))


@pytest.mark.parametrize('backbone', [dict(type='C3D'), dict(type='ResNet3d', depth=50, base_channels=4)], ids=str)
def test_another_backbone_is_refused_with_what_there_is(backbone):
    cfg = tiny.config()
    cfg['model']['backbone'] = backbone
    with tiny.refused(backbone['type'], 'SwinTransformer3D'):
        build_model(cfg, meta=True)


def test_a_delta_of_ones_own():
    """What "adding a method" promises: a registered subclass is enough."""

    class Shift(Delta):
        places = ('proj', 'fc2')

        def __init__(self, dim: int, *, size: float = 1.0) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.full((1,), size))

        def reset_parameters(self) -> None:
            torch.nn.init.zeros_(self.shift)

        def forward(self, x):
            return self.shift

    MODELS.register_module(module=Shift)
    try:
        model = build_model(tiny.config(dict(shift=dict(type='Shift', at='fc2')), []), init_weights=True)
        with pytest.raises(UserError, match=r'proj'):
            build_model(tiny.config(dict(shift=dict(type='Shift', at='qkv'))))
        with pytest.raises(UserError, match=r'Shift'):
            build_model(tiny.config(dict(shift=dict(type='Shfit'))))
    finally:
        MODELS.module_dict.pop('Shift')
    assert tiny.trainable(model) == {f'backbone.layers.0.blocks.{b}.mlp.fc2.deltas.shift.shift' for b in (0, 1)}
    assert model.plan.count()['by'] == dict(shift=2)


# Initialisation


def test_random_backbone_is_announced(caplog):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('announced')
    logger.addHandler(caplog.handler)
    build_model(tiny.config(base=None), init_weights=True)
    said = [r.getMessage() for r in caplog.records if 'RANDOM' in r.getMessage().upper()]
    assert len(said) == 1


def test_base_is_told():
    base = dict(file='a.pth', url='http://x', sha256='0', convert='video_swin')
    assert build_model(tiny.config(base=base)).base == base
    assert build_model(tiny.config(base=None)).base is None


def test_initialising_reads_the_base(tmp_path):
    source = tiny.tiny()
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'base.pth')
    base = dict(file=str(tmp_path / 'base.pth'))
    model = build_model(tiny.config(dict(patt=dict(PATT, init='zero')), base=base), init_weights=True).eval()
    x = tiny.clip()
    assert torch.equal(model.backbone(x), source.backbone(x))
    assert not torch.equal(model.cls_head.fc_cls.weight, source.cls_head.fc_cls.weight), 'the head is new'


def test_copies_initialise_alike():
    model = build_model(tiny.config(dict(adapter=ADAPTER)))
    twin = copy.deepcopy(model)
    twin.init_weights()
    assert all(not v.any() for k, v in twin.state_dict().items() if 'deltas.adapter.up' in k)
