"""Frames folded into the batch, for image backbones on clips, and what their features become over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

POOLS = ('mean', 'overlap', 'attention')


def folded(clips: Tensor) -> Tensor:
    """Return the frames of clips, (B, 3, T, H, W), as images, (B T, 3, H, W): those of a clip follow each other."""
    return clips.transpose(1, 2).flatten(0, 1)


def over_time(features: Tensor, frames: int) -> Tensor:
    """Return features of frames, (B T, d), as those of clips in the form of the video backbones, (B, d, T, 1, 1)."""
    return features.unflatten(0, (-1, frames)).transpose(1, 2)[..., None, None]


class AttentionPool(nn.Module):
    """Pools features over time with trained attention: softmax over the frames of q . x_t / sqrt(d).

    q starts at zero, where it is the mean. It weighs a frame by what is in it, whatever its place: like the mean, it
    does not see the order of frames.

    Args:
        dim: d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(dim))

    def reset_parameters(self) -> None:
        """Start as the mean again."""
        nn.init.zeros_(self.query)

    def forward(self, x: Tensor) -> Tensor:
        """Pool features of (B, d, T, H, W), averaged over H and W, to (B, d)."""
        frames = x.mean((3, 4)).transpose(1, 2)
        weights = (frames.float() @ self.query.float() / frames.shape[-1] ** 0.5).softmax(1)
        return torch.einsum('bt,btd->bd', weights.to(frames.dtype), frames)
