"""Frames as images, and what their features become over time."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from vpetl_mm.models.folding import AttentionPool, folded, over_time


def test_frames_of_a_clip_follow_each_other():
    clips = torch.randn(2, 3, 4, 5, 6)
    images = folded(clips)
    assert images.shape == (8, 3, 5, 6)
    for clip in range(2):
        for frame in range(4):
            assert torch.equal(images[4 * clip + frame], clips[clip, :, frame])


def test_features_of_frames_become_those_of_clips():
    features = torch.randn(6, 7)
    clips = over_time(features, 3)
    assert clips.shape == (2, 7, 3, 1, 1)
    assert torch.equal(clips[1, :, 2, 0, 0], features[5])


def pool(dim: int = 4) -> AttentionPool:
    pool = AttentionPool(dim)
    nn.init.normal_(pool.query, generator=torch.Generator().manual_seed(0))
    return pool


def test_attention_weighs_frames_by_what_is_in_them():
    x = torch.randn(2, 4, 3, 2, 2)
    attends = pool()
    frames, query = x.numpy().mean((3, 4)), attends.query.detach().numpy()
    for clip, pooled in zip(frames, attends(x).detach().numpy(), strict=True):
        scores = np.exp(query @ clip / 2)  # the root of 4
        np.testing.assert_allclose(pooled, clip @ (scores / scores.sum()), rtol=1e-5)


def test_attention_starts_as_the_mean_and_learns():
    attends, x = pool(), torch.randn(2, 4, 3, 1, 1)
    attends.reset_parameters()
    torch.testing.assert_close(attends(x), x.mean((2, 3, 4)))
    attends(x).square().sum().backward()
    assert attends.query.grad.abs().min() > 0


def test_attention_does_not_see_the_order_of_frames():
    attends, x = pool(), torch.randn(2, 4, 3, 1, 1)
    torch.testing.assert_close(attends(x), attends(x.flip(2)))
