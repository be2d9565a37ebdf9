"""Pre-trained backbones: where they come from, how their names are translated, and that they fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, unknown
from ..petl import host_of
from .vit_weights import from_timm_vit, from_videomae

StateDict = dict[str, Tensor]
BASE_KEYS = ('file', 'url', 'sha256', 'convert')


def read_weights(file: str | Path) -> StateDict:
    """The tensors of a .pth or .safetensors file, out of ``state_dict`` or ``model`` where they lie in one.

    Raises:
        UserError: when the file is missing, broken, or needs more than ``weights_only`` allows.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f'{path} does not exist.')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f'{path} cannot be read safely as weights ({reason}).') from error
    for key in ('state_dict', 'model'):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise UserError(f'{path} holds no weights.')
    return tensors


def file_sha256(file: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(file, 'rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()


def _final_norm(backbone: nn.Module) -> str:
    return f'norm{max(backbone.out_indices)}'


def from_openmmlab(state: StateDict, backbone: nn.Module) -> StateDict:
    """mmaction2's naming, and this project's own: the backbone's part without its prefix, or all of it."""
    prefix = 'backbone.'
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    # VideoMAE's sinusoid table follows from the number of frames, which may be another here
    made = {'pos_embed'} & {name for name, _ in backbone.named_buffers()}
    return {k: v for k, v in (inside or state).items() if k not in made}


def from_video_swin(state: StateDict, backbone: nn.Module) -> StateDict:
    """The Video Swin authors' naming: ``backbone.`` in front and the final norm called ``norm``."""
    state = from_openmmlab(state, backbone)
    final = _final_norm(backbone)
    return {f'{final}.{k[5:]}' if k.startswith('norm.') else k: v for k, v in state.items()}


def from_swin2d(state: StateDict, backbone: nn.Module) -> StateDict:
    """A 2D Swin in its authors' naming, inflated as in Video Swin.

    The patch embedding is spread evenly over the frames of a patch; every relative-position-bias table is
    resized to the window (bicubic) and repeated over the 2 wd - 1 temporal offsets.
    """
    state = {k: v for k, v in state.items() if not k.startswith('head.') and 'attn_mask' not in k}
    state = {k: v for k, v in from_video_swin(state, backbone).items() if 'relative_position_index' not in k}
    frames = backbone.patch_size[0]
    patch = state.get('patch_embed.proj.weight')
    if patch is None or patch.ndim != 4:
        raise UserError('convert="swin2d" is for a 2D Swin, whose patch_embed.proj.weight has four dimensions.')
    state['patch_embed.proj.weight'] = patch.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames
    for key in [k for k in state if k.endswith('relative_position_bias_table')]:
        state[key] = _inflate_table(state[key], backbone.window_size)
    return state


def _inflate_table(table: Tensor, window: tuple[int, int, int]) -> Tensor:
    side, heads = round(table.shape[0] ** 0.5), table.shape[1]
    size = (2 * window[1] - 1, 2 * window[2] - 1)
    plane = table.T.reshape(1, heads, side, side)
    if (side, side) != size:
        plane = F.interpolate(plane, size, mode='bicubic', align_corners=False)
    return plane.reshape(heads, -1).T.repeat(2 * window[0] - 1, 1)


CONVERTERS: dict[str | None, Callable[[StateDict, nn.Module], StateDict]] = {
    None: from_openmmlab,
    'video_swin': from_video_swin,
    'swin2d': from_swin2d,
    'timm_vit': from_timm_vit,
    'videomae': from_videomae,
}

# the host that a naming is for
CONVERTED_FOR = {
    'video_swin': 'mmaction.SwinTransformer3D',
    'swin2d': 'mmaction.SwinTransformer3D',
    'timm_vit': 'mmpretrain.VisionTransformer',
    'videomae': 'mmaction.VisionTransformer',
}


def check_base(base: Any) -> dict[str, Any] | None:
    """The ``base`` dict of a model config, or a :class:`UserError` that says what is wrong with it."""
    if base is None:
        return None
    if not isinstance(base, dict) or not base.get('file'):
        raise UserError(f'model.base must be dict(file=..., url=...) or, for a random backbone, None; got {base!r}.')
    for key in base:
        if key not in BASE_KEYS:
            raise unknown('model.base key', key, BASE_KEYS)
    if base.get('convert') not in CONVERTERS:
        raise unknown('model.base.convert', base['convert'], [str(c) for c in CONVERTERS])
    return dict(base)


def base_state(backbone: nn.Module, base: dict[str, Any]) -> StateDict:
    """The tensors of ``base``, translated and complete for ``backbone``, which may be on the meta device.

    Args:
        backbone: without deltas.
        base: ``file``, and optionally ``url`` (said when the file is missing), ``sha256`` (checked) and
            ``convert`` (a name in ``CONVERTERS``).

    Raises:
        UserError: when the file is missing, is another file than ``sha256`` says, or is of another
            architecture.
    """
    if not Path(base['file']).is_file():
        raise UserError(f'The pre-trained weights {base["file"]} are missing. {how_to_get(base)}')
    if base.get('sha256') and file_sha256(base['file']) != base['sha256']:
        raise UserError(f'{base["file"]} is not the file that the config names: its SHA-256 is not {base["sha256"]}.')
    convert = base.get('convert')
    if convert is not None and CONVERTED_FOR[convert] != host_of(backbone):
        wanted = CONVERTED_FOR[convert]
        raise UserError(f'model.base.convert={convert!r} is for {wanted}, and the backbone is {host_of(backbone)}.')
    state = read_weights(base['file'])
    try:
        state = CONVERTERS[convert](state, backbone)
    except UserError as error:
        raise UserError(f'{base["file"]}: {error}') from error
    wanted = backbone.state_dict()
    # buffers follow from the settings, such as the window's size, and are left out of some files
    derived = {k for k, _ in backbone.named_buffers() if k not in state}
    wrong = [k for k, v in wanted.items() if k not in derived and (k not in state or state[k].shape != v.shape)]
    wrong += [k for k in state if k not in wanted]
    if wrong:
        raise UserError(_mismatch(base['file'], state, wanted, wrong[0]))
    return state


def load_base(backbone: nn.Module, base: dict[str, Any]) -> None:
    """Load pre-trained weights into a plain backbone; every key must match, or it is left unchanged.

    Raises:
        UserError: as :func:`base_state`.
    """
    state = base_state(backbone, base)
    backbone.load_state_dict({**backbone.state_dict(), **state})


def how_to_get(base: dict[str, Any]) -> str:
    """Where a base file comes from, as a sentence."""
    return f'Get it from {base["url"]}' if base.get('url') else 'Set model.base.file to where it is.'


def _mismatch(file: str, state: StateDict, wanted: StateDict, first: str) -> str:
    matched = sum(k in state and state[k].shape == v.shape for k, v in wanted.items())
    if first not in state:
        what = 'is missing from the file'
    elif first not in wanted:
        what = 'is not in this backbone'
    else:
        what = f'is {tuple(state[first].shape)} in the file and {tuple(wanted[first].shape)} in this backbone'
    return (
        f'{file} is of another architecture: {matched} of {len(wanted)} keys matched; the first that did not, '
        f'{first}, {what}.'
    )
