"""What the configs in a bundle may say: a stranger's bundle names known parts and plain values, and nothing else.

mmengine's registries import and call whatever a dotted ``type`` names, so nothing is built before it is checked here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..config import arguments_of
from ..errors import UserError, tellable
from ..models.token_head import PETLImageHead, PETLTokenHead
from ..models.video_head import PETLVideoHead
from ..petl import DELTAS
from ..petl.plan import PETL_KEYS

# what decides only how a model is trained, initialised or filled; a bundle leaves it out
TRAINING = ('train_cfg', 'init_cfg', 'pretrained', 'loss', 'loss_cls', 'label_smooth_eps', 'topk', 'cal_acc')
TRAINING += ('init_std', 'blending', 'batch_augments', 'to_onehot', 'frozen_stages', 'with_cp', 'pretrained2d')
VIT = ('arch', 'img_size', 'patch_size', 'in_channels', 'out_indices', 'drop_rate', 'drop_path_rate', 'qkv_bias')
VIT += (
    'norm_cfg',
    'final_norm',
    'out_type',
    'with_cls_token',
    'interpolate_mode',
    'layer_scale_init_value',
    'pre_norm',
)
SWIN = ('arch', 'img_size', 'patch_size', 'in_channels', 'window_size', 'drop_rate', 'drop_path_rate', 'out_indices')
SWIN += ('out_after_downsample', 'use_abs_pos_embed', 'interpolate_mode', 'norm_eval', 'pad_small_map', 'norm_cfg')
SWIN3D = ('arch', 'patch_size', 'in_channels', 'window_size', 'mlp_ratio', 'qkv_bias', 'qk_scale', 'drop_rate')
SWIN3D += ('attn_drop_rate', 'drop_path_rate', 'act_cfg', 'norm_cfg', 'patch_norm', 'out_indices')
SWIN3D += ('out_after_downsample',)
VIDEOMAE = ('img_size', 'patch_size', 'in_channels', 'embed_dims', 'depth', 'num_heads', 'mlp_ratio', 'qkv_bias')
VIDEOMAE += ('qk_scale', 'drop_rate', 'attn_drop_rate', 'drop_path_rate', 'norm_cfg', 'init_values', 'num_frames')
VIDEOMAE += ('use_learnable_pos_emb', 'tubelet_size', 'use_mean_pooling')
FRAMES = (
    'clip_len',
    'frame_interval',
    'num_clips',
    'out_of_bound_opt',
    'test_mode',
    'keep_tail_frames',
    'target_fps',
)


def _of_ours(*classes: type) -> dict[str, set[str]]:
    return {cls.__name__: {*arguments_of(cls)} - {*TRAINING} for cls in classes}


# the key that an entry stands under -> the types that it may have -> their arguments
ENTRIES: dict[str, dict[str, Iterable[str]]] = {
    'model': {
        'PETLRecognizer3D': ('backbone', 'cls_head', 'data_preprocessor', 'petl', 'test_cfg'),
        'PETLImageClassifier': ('backbone', 'head', 'data_preprocessor', 'petl'),
    },
    'backbone': {'SwinTransformer3D': SWIN3D, 'SwinTransformer': SWIN, 'VisionTransformer': {*VIT, *VIDEOMAE}},
    'cls_head': _of_ours(PETLVideoHead, PETLTokenHead),
    'head': _of_ours(PETLImageHead),
    'data_preprocessor': {
        'ActionDataPreprocessor': ('mean', 'std', 'to_rgb', 'to_float32', 'format_shape'),
        'ClsDataPreprocessor': ('mean', 'std', 'to_rgb', 'pad_size_divisor', 'pad_value'),
    },
    'deltas': {
        cls.__name__: {*arguments_of(cls)} - {'dim', 'in_dim', 'out_dim', 'host_slots'} | {'at'} for cls in DELTAS
    },
    'attention': dict.fromkeys(
        ('FastWindowAttention3D', 'FastWindowMSA', 'PETLMultiheadAttention', 'PETLVideoMAEAttention'), ()
    ),
    'norm_cfg': dict.fromkeys(('LN', 'BN', 'BN1d', 'BN2d', 'BN3d'), ('eps', 'momentum', 'affine')),
    'act_cfg': dict.fromkeys(('GELU', 'ReLU', 'SiLU'), ()),
    'pipeline': {
        'OpenVideo': (),
        'DecodeVideo': (),
        'DecordInit': ('num_threads',),
        'DecordDecode': ('mode',),
        'PyAVInit': (),
        'PyAVDecode': ('multi_thread', 'mode'),
        'SampleFrames': FRAMES,
        'DenseSampleFrames': (*FRAMES, 'sample_range', 'num_sample_positions'),
        'UniformSample': ('clip_len', 'num_clips', 'test_mode'),
        'LoadImageFromFile': ('to_float32', 'color_type', 'imdecode_backend'),
        'NumpyToPIL': ('to_rgb',),
        'PILToNumpy': ('to_bgr',),
        'Resize': ('scale', 'keep_ratio', 'interpolation', 'backend'),
        'ResizeEdge': ('scale', 'edge', 'interpolation', 'backend'),
        'CenterCrop': ('crop_size',),
        'ThreeCrop': ('crop_size',),
        'TenCrop': ('crop_size',),
        'torchvision/Resize': ('size', 'interpolation', 'antialias'),
        'torchvision/CenterCrop': ('size',),
        'FormatShape': ('input_format', 'collapse'),
        'PackActionInputs': (),
        'PackInputs': (),
    },
}
# entries without a type, by key; ``arch`` and the like hold numbers alone
PLAIN = {'petl': {*PETL_KEYS}, 'spt': {'structured', 'rank', 'dropout'}, 'test_cfg': {'max_testing_views'}}
ARCH = {'embed_dims', 'depths', 'num_heads', 'num_layers', 'feedforward_channels'}
WORDS = re.compile(r'[A-Za-z0-9_ +-]{0,64}')
MOST, MOST_PARTS, MOST_PIXELS = 1_000_000, 1000, 1 << 30
# what loops of Python run over, and what decides the size of what is read
MOST_OF = {'depths': 512, 'num_layers': 512, 'depth': 512, 'num_clips': 1024, 'clip_len': 1024}
MOST_OF |= dict.fromkeys(('scale', 'crop_size', 'size'), 8192)


def checked_model(config: Any, where: str) -> dict[str, Any]:
    """Return a model's config; its lists of plain values become tuples, as configs have them.

    Raises:
        UserError: for a type, an argument or a value that a bundle may not have; ``where`` begins the sentence.
    """
    return _entry('model', config, where, 'model')


def checked_pipeline(steps: Any, where: str) -> list[dict[str, Any]]:
    """Return the steps of a test pipeline, checked as by :func:`checked_model`."""
    if not isinstance(steps, list) or not 0 < len(steps) <= 50:
        raise UserError(f'{where}: pipeline is not a list of steps.')
    steps = [_entry('pipeline', step, where, f'pipeline[{i}]') for i, step in enumerate(steps)]
    frames, side, crops = 1, 1, 1
    for step in steps:
        frames *= abs(step.get('clip_len') or 1) * abs(step.get('num_clips') or 1)
        sizes = [step.get(name) for name in ('scale', 'crop_size', 'size')]
        flat = [n for size in sizes for n in (size if isinstance(size, tuple) else (size,)) if isinstance(n, int)]
        side = max([side, *flat])
        crops *= {'ThreeCrop': 3, 'TenCrop': 10}.get(step['type'], 1)
    if frames * crops * side**2 * 3 > MOST_PIXELS:
        raise UserError(
            f'{where}: pipeline would read {frames:,} frames of up to {side:,} pixels a side, for one clip.'
        )
    return steps


def _entry(key: str, config: Any, where: str, name: str) -> dict[str, Any]:
    """Check an entry with a type; ``key`` says which types it may have."""
    kinds = ENTRIES[key]
    kind = config.get('type') if isinstance(config, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        shown = tellable(repr(kind))[:80]
        raise UserError(f'{where}: {name}.type is {shown}, and a bundle may have {", ".join(kinds)} there.')
    entry = {'type': kind}
    for argument, value in config.items():
        if argument != 'type':
            _known(argument, kinds[kind], where, f'{name} ({kind})')
            entry[argument] = _argument(argument, value, where, f'{name}.{argument}')
    return entry


def _known(argument: Any, known: Iterable[str], where: str, name: str) -> None:
    if argument not in known:
        raise UserError(f'{where}: {name} has {tellable(repr(argument))[:80]}, which a bundle cannot hold.')


def _argument(key: str, value: Any, where: str, name: str) -> Any:
    if key == 'deltas' and isinstance(value, Mapping) and len(value) <= MOST_PARTS:
        if not all(isinstance(n, str) and n.isidentifier() and n.isascii() for n in value):
            raise UserError(f'{where}: {name} has a name that is not an identifier.')
        return {n: None if v is None else _entry(key, v, where, f'{name}.{n}') for n, v in value.items()}
    if key in ENTRIES and value is not None:
        return _entry(key, value, where, name)
    if isinstance(value, Mapping) and (key in PLAIN or key == 'arch'):
        for argument in value:
            _known(argument, PLAIN.get(key, ARCH), where, name)
        return {k: _argument(k, v, where, f'{name}.{k}') for k, v in value.items()}
    return _plain(key, value, where, name)


def _plain(key: str, value: Any, where: str, name: str) -> Any:
    """Check text, a number or a list of these."""
    if isinstance(value, (list, tuple)) and len(value) <= MOST_PARTS:
        if any(isinstance(part, (list, tuple)) for part in value):
            raise UserError(f'{where}: {name} is a list in a list.')
        return tuple(_plain(key, part, where, name) for part in value)
    right = value is None or isinstance(value, bool)
    right = right or (
        isinstance(value, (int, float)) and math.isfinite(value) and abs(value) <= MOST_OF.get(key, MOST)
    )
    right = right or (isinstance(value, str) and WORDS.fullmatch(value))
    if not right:
        raise UserError(f'{where}: {name} is {tellable(repr(value))[:80]}, which a bundle cannot hold.')
    return value
