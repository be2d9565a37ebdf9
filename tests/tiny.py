"""Small models and inputs for the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vpetl_mm import build_model

HOST = None  # the attention of the host library
FAST = dict(type='FastWindowAttention3D')


def config(
    deltas: Mapping[str, Any] | None = None,
    train: Sequence[str] = ('head',),
    *,
    depths: Sequence[int] = (2,),
    embed: int = 16,
    attention: Mapping[str, Any] | None = FAST,
    base: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    seed: int | None = None,
    **backbone: Any,
) -> dict[str, Any]:
    """The config of a small Video Swin with deltas; ``backbone`` are further options of the backbone."""
    last = len(depths) - 1
    arch = dict(embed_dims=embed, depths=list(depths), num_heads=[2 * 2**i for i in range(len(depths))])
    swin = dict(
        type='SwinTransformer3D',
        arch=arch,
        window_size=(2, 4, 4),
        drop_path_rate=0.0,
        out_indices=(last,),
    )
    cls_head = dict(type='PETLVideoHead', num_classes=3, in_channels=embed * 2**last)
    model = dict(
        type='PETLRecognizer3D',
        backbone={**swin, **backbone},
        cls_head={**cls_head, **(head or {})},
        petl=dict(deltas=dict(deltas or {}), train=list(train), attention=attention),
        base=base,
    )
    cfg = dict(default_scope='mmaction', model=model)
    return cfg if seed is None else dict(cfg, randomness=dict(seed=seed))


def swin_b(deltas: Mapping[str, Any], train: Sequence[str], num_classes: int = 174) -> dict[str, Any]:
    """The config of the papers' Video Swin-B."""
    return dict(
        default_scope='mmaction',
        model=dict(
            type='PETLRecognizer3D',
            backbone=dict(type='SwinTransformer3D', arch='base', window_size=(8, 7, 7), drop_path_rate=0.4),
            cls_head=dict(type='PETLVideoHead', num_classes=num_classes, in_channels=1024),
            petl=dict(deltas=dict(deltas), train=list(train)),
            base=None,
        ),
    )


def randomised(module: nn.Module, seed: int = 0, std: float = 0.3) -> nn.Module:
    """``module`` with every parameter drawn from a normal distribution, biases and zeros included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return module


def tiny(*args: Any, seed_weights: int = 0, **kwargs: Any) -> nn.Module:
    """:func:`config` built, all its parameters random and away from zero, in eval mode."""
    return randomised(build_model(config(*args, **kwargs)), seed_weights).eval()


def clip(batch: int = 2, size: tuple[int, int, int] = (8, 24, 24), seed: int = 0) -> Tensor:
    """Random clips of shape (batch, 3, T, H, W)."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Backbone and head, without mmaction2's sample handling."""
    return model.cls_head(model.backbone(x))


def trainable(model: nn.Module) -> set[str]:
    """The names of the parameters that require gradients."""
    return {n for n, p in model.named_parameters() if p.requires_grad}
