"""Swin: its authors' naming (2D and video), mmaction2's naming, and how both fit the host."""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .tensors import Weights
from .vit import HEADS

PATCH = 'patch_embed.proj.weight'


def openmmlab_names(weights: Weights) -> None:
    """Translate the naming of mmaction2's and mmpretrain's zoos: only heads and derived buffers are dropped."""
    weights.drop(HEADS, 'head')
    weights.drop(r'.*(relative_position_index|attn_mask)$', 'derived from the settings')


def swin_names(weights: Weights) -> None:
    """Translate the Swin authors' naming, 2D or video."""
    openmmlab_names(weights)
    weights.theirs = lambda name: re.sub(r'^norm\d\.', 'norm.', name)


def fit_plain(weights: Weights, backbone: nn.Module) -> None:
    """Drop VideoMAE's sine table, which follows from the number of frames and may differ here."""
    if 'pos_embed' in {name for name, _ in backbone.named_buffers()}:
        weights.drop('pos_embed$', 'derived from the settings')


def fit_swin(weights: Weights, backbone: nn.Module) -> None:
    """Rename the final norm as ``backbone`` numbers it."""
    final = f'norm{max(backbone.out_indices)}'
    weights.rename(lambda name: f'{final}.{name[5:]}' if name.startswith('norm.') else name)


def fit_swin2d(weights: Weights, backbone: nn.Module) -> None:
    """Inflate a 2D Swin as Video Swin does.

    The patch embedding is spread evenly over the frames of a patch; every relative-position-bias table is
    resized to the window (bicubic) and repeated over the 2 wd - 1 temporal offsets.

    Raises:
        UserError: when it is not a 2D Swin.
    """
    fit_swin(weights, backbone)
    if PATCH not in weights or weights[PATCH].ndim != 4:
        raise UserError(f'"swin2d" is for a 2D Swin, whose {PATCH} has four dimensions.')
    frames = backbone.patch_size[0]
    weights.change(PATCH, weights[PATCH].unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames, 'inflated')
    for name in weights:
        if name.endswith('relative_position_bias_table'):
            weights.change(name, _inflated(name, weights[name], backbone.window_size), 'inflated')


def _inflated(name: str, table: Tensor, window: tuple[int, int, int]) -> Tensor:
    side = round(table.shape[0] ** 0.5)
    if table.ndim != 2 or side * side != table.shape[0]:
        raise UserError(f'{name} is {tuple(table.shape)}, which is not the table of a square window.')
    size, heads = (2 * window[1] - 1, 2 * window[2] - 1), table.shape[1]
    plane = table.T.reshape(1, heads, side, side)
    if (side, side) != size:
        plane = F.interpolate(plane, size, mode='bicubic', align_corners=False)
    return plane.reshape(heads, -1).T.repeat(2 * window[0] - 1, 1)
