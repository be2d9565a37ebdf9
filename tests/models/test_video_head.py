"""The head: how frames are pooled, how it starts, and how clips are averaged."""

from __future__ import annotations

import pytest
import tiny
import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample

from vpetl_mm.models.video_head import PETLVideoHead

C, CLASSES = 8, 5


def head(**options) -> PETLVideoHead:
    return tiny.randomised(PETLVideoHead(CLASSES, C, **options)).eval()


def features(batch: int = 2, frames: int = 4) -> torch.Tensor:
    return torch.randn(batch, C, frames, 3, 2, generator=torch.Generator().manual_seed(0))


def classify(model: PETLVideoHead, pooled: torch.Tensor) -> torch.Tensor:
    return pooled @ model.fc_cls.weight.T + model.fc_cls.bias


def test_mean_pooling_is_the_default():
    model, x = head(), features()
    torch.testing.assert_close(model(x), classify(model, x.mean((2, 3, 4))))


def test_overlap_weighs_four_frames_as_published():
    model, x = head(temporal_pool='overlap'), features()
    weights = torch.tensor([1 / 6, 1 / 3, 1 / 3, 1 / 6])
    torch.testing.assert_close(model(x), classify(model, (x.mean((3, 4)) * weights).sum(2)))


def test_attention_pools_over_time_and_starts_as_the_mean():
    model, x = head(temporal_pool='attention'), features()
    frames = x.mean((3, 4))
    weights = (torch.einsum('d,bdt->bt', model.pool.query, frames) / C**0.5).softmax(1)
    torch.testing.assert_close(model(x), classify(model, torch.einsum('bt,bdt->bd', weights, frames)))
    model.init_weights()
    torch.testing.assert_close(model(x), classify(model, x.mean((2, 3, 4))))


@pytest.mark.parametrize('frames', [2, 3, 4, 8, 16])
def test_overlap_is_the_published_pooling(frames):
    """A pooling of kernel (2, H, W) and stride 1, and then the mean."""
    model, x = head(temporal_pool='overlap'), features(frames=frames)
    pooled = F.avg_pool3d(x, (2, 3, 2), stride=1).mean((2, 3, 4))
    torch.testing.assert_close(model(x), classify(model, pooled))


@pytest.mark.parametrize('pool', ['mean', 'overlap'])
def test_a_single_frame(pool):
    model, x = head(temporal_pool=pool), features(frames=1)
    torch.testing.assert_close(model(x), classify(model, x.mean((2, 3, 4))))


def test_starts_as_nn_linear():
    torch.manual_seed(0)
    model = PETLVideoHead(50, 256)
    for _ in range(2):
        for tensor in (model.fc_cls.weight, model.fc_cls.bias):
            assert tensor.abs().max() <= 1 / 16
            assert tensor.std().item() == pytest.approx(1 / 16 / 3**0.5, rel=0.3)
        model.init_weights()  # I3DHead's own would draw a normal distribution of 0.01 and a zero bias


def test_no_dropout_by_default():
    model, x = head(), features()
    model.train()
    assert torch.equal(model(x), model(x))
    model = head(dropout_ratio=0.5)
    model.train()
    assert not torch.equal(model(x), model(x))


def test_logits_are_float32_under_autocast():
    model, x = head(), features()
    with torch.autocast('cpu', torch.bfloat16):
        logits = model(x.bfloat16())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model(x), atol=0.05, rtol=0.05)


def test_views_are_averaged_as_logits():
    model, x = head(), features(batch=6)
    logits = classify(model, x.mean((2, 3, 4))) * 3
    with torch.no_grad():
        model.fc_cls.weight.mul_(3)
        model.fc_cls.bias.mul_(3)
        samples = model.predict(x, [ActionDataSample() for _ in range(2)])
    scores = torch.stack([s.pred_score for s in samples])
    torch.testing.assert_close(scores, logits.view(2, 3, CLASSES).mean(1))
    assert not torch.allclose(scores, logits.softmax(-1).view(2, 3, CLASSES).mean(1), atol=1e-2)


def test_another_pooling_is_said():
    with tiny.refused("'max'", 'mean', 'overlap'):
        PETLVideoHead(CLASSES, C, temporal_pool='max')
