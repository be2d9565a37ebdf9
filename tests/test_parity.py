"""Right to the number: outputs and gradients of the reference implementation (random weights)."""

from __future__ import annotations

import pytest
import torch
from golden import DATA, Golden

from vpetl_mm import build_model

FILES = sorted(DATA.glob('swin_*.npz'))


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm().clamp_min(1e-12)).item()


@pytest.mark.parametrize('attention', [None, dict(type='FastWindowAttention3D')], ids=['host', 'fast'])
@pytest.mark.parametrize('path', FILES, ids=lambda p: p.stem)
def test_features_logits_and_gradients(path, attention):
    golden = Golden(path)
    model = build_model(golden.model_config(attention)).eval()
    keys = model.load_state_dict(golden.weights, strict=False)
    assert not keys.unexpected_keys
    assert all(k.endswith('relative_position_index') for k in keys.missing_keys)

    features = model.backbone(golden.input)
    logits = model.cls_head(features)
    logits.square().sum().backward()

    torch.testing.assert_close(features, golden.features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits, golden.logits, atol=1e-5, rtol=1e-5)
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert set(grads) == set(golden.grads)
    worst = {n: relative(g, golden.grads[n]) for n, g in grads.items()}
    assert max(worst.values()) < 1e-4, sorted(worst.items(), key=lambda i: -i[1])[:3]


def test_there_are_references():
    assert len(FILES) >= 3
