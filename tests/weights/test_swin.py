"""A 2D Swin, inflated for videos."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from convert_command import write
from references import swin
from torch import Tensor, nn

from vpetl_mm.weights.base import load_base

State = dict[str, Tensor]


def authors_names(state: State, last: int = 1) -> State:
    """As the Video Swin authors call them."""
    return {k.replace(f'norm{last}.', 'norm.') if k.startswith(f'norm{last}.') else k: v for k, v in state.items()}


def swin2d_state(window: int = 4) -> State:
    """The file of a 2D Swin: what a 3D one has, without time, with what the authors' files hold besides."""
    side = 2 * window - 1
    generator = torch.Generator().manual_seed(3)
    state = authors_names(swin().state_dict())
    for key, value in state.items():
        if key.endswith('relative_position_bias_table'):
            state[key] = torch.randn(side * side, value.shape[1], generator=generator)
        elif key.endswith('relative_position_index'):
            state[key] = torch.zeros(window**2, window**2, dtype=torch.long)
    state['patch_embed.proj.weight'] = torch.randn(16, 3, 4, 4, generator=generator)
    state['layers.0.blocks.1.attn_mask'] = torch.zeros(4, window**2, window**2)
    return state | {'head.weight': torch.randn(1000, 32), 'head.bias': torch.randn(1000)}


def inflated(state: State, **options) -> nn.Module:
    target = swin(seed=1, **options)
    load_base(target, dict(file=write(dict(model=state)), convert='swin2d'))
    return target


@pytest.mark.parametrize('frames', [1, 2, 4])
def test_inflated_patches_see_a_still_clip_as_the_image(frames):
    state = swin2d_state()
    target = inflated(state, patch_size=(frames, 4, 4))
    image = torch.randn(2, 3, 16, 16)
    clip = image.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    expected = F.conv2d(image, state['patch_embed.proj.weight'], state['patch_embed.proj.bias'], stride=4)
    torch.testing.assert_close(target.patch_embed.proj(clip)[:, :, 0], expected)


@pytest.mark.parametrize('w_d', [1, 2, 3])
def test_inflated_bias_depends_on_space_alone(w_d):
    state = swin2d_state()
    attention = inflated(state, window=(w_d, 4, 4)).layers[1].blocks[0].attn
    n = w_d * 16
    bias = attention.relative_position_bias_table[attention.relative_position_index.view(-1)].view(n, n, -1)
    plane = state['layers.1.blocks.0.attn.relative_position_bias_table']
    for i, j in [(0, 0), (0, n - 1), (n - 1, 0), (5, 11), (n - 3, 6)]:
        (yi, xi), (yj, xj) = divmod(i % 16, 4), divmod(j % 16, 4)
        torch.testing.assert_close(bias[i, j], plane[(yi - yj + 3) * 7 + (xi - xj + 3)])


def test_everything_else_is_unchanged():
    state = swin2d_state()
    for key, value in inflated(state).state_dict().items():
        theirs = key.replace('norm1.', 'norm.') if key.startswith('norm1.') else key
        if 'relative_position' not in key and key != 'patch_embed.proj.weight':
            assert torch.equal(value, state[theirs]), key


@pytest.mark.parametrize('window', [4, 3, 6])
def test_inflation_is_mmaction2s_own(window):
    """The host library's inflate_weights (which looks for norm3 alone), also where tables are resized."""
    from mmengine.logging import MMLogger

    ours = inflated(swin2d_state(window)).state_dict()
    host = swin(seed=2)
    host.pretrained = 'src.pth'
    host.inflate_weights(MMLogger.get_current_instance())
    theirs = host.state_dict()
    for key in ours:
        if not key.startswith('norm1.'):
            torch.testing.assert_close(ours[key], theirs[key], msg=key)
