"""What the configs in a bundle may contain: known parts and plain values, and nothing else.

mmengine's registries import and call whatever a dotted ``type`` names, so nothing is built before it is checked here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ...config import arguments_of
from ...errors import UserError
from ...models.token_head import PETLImageHead, PETLTokenHead
from ...models.video_head import PETLVideoHead
from ...petl import DELTAS
from ...petl.delta import options_of
from ...petl.layouts import LAYOUTS, forms
from ...petl.settings import PETL_KEYS
from . import libraries
from .header import MOST_CLASSES, brief

# arguments that matter only in training or initialisation; a bundle leaves them out
TRAINING = ('train_cfg', 'init_cfg', 'pretrained', 'loss', 'loss_cls', 'label_smooth_eps', 'topk', 'cal_acc')
TRAINING += ('init_std', 'blending', 'batch_augments', 'to_onehot', 'frozen_stages', 'with_cp', 'pretrained2d')
VIT = ('arch', 'img_size', 'patch_size', 'in_channels', 'out_indices', 'drop_rate', 'drop_path_rate', 'qkv_bias')
VIT += ('norm_cfg', 'final_norm', 'out_type', 'with_cls_token', 'interpolate_mode', 'layer_scale_init_value')
VIT += ('pre_norm',)
SWIN = ('arch', 'img_size', 'patch_size', 'in_channels', 'window_size', 'drop_rate', 'drop_path_rate', 'out_indices')
SWIN += ('out_after_downsample', 'use_abs_pos_embed', 'interpolate_mode', 'norm_eval', 'pad_small_map', 'norm_cfg')
SWIN3D = ('arch', 'patch_size', 'in_channels', 'window_size', 'mlp_ratio', 'qkv_bias', 'qk_scale', 'drop_rate')
SWIN3D += ('attn_drop_rate', 'drop_path_rate', 'act_cfg', 'norm_cfg', 'patch_norm', 'out_indices')
SWIN3D += ('out_after_downsample',)
VIDEOMAE = ('img_size', 'patch_size', 'in_channels', 'embed_dims', 'depth', 'num_heads', 'mlp_ratio', 'qkv_bias')
VIDEOMAE += ('qk_scale', 'drop_rate', 'attn_drop_rate', 'drop_path_rate', 'norm_cfg', 'init_values', 'num_frames')
VIDEOMAE += ('use_learnable_pos_emb', 'tubelet_size', 'use_mean_pooling')
FRAMES = ('clip_len', 'frame_interval', 'num_clips', 'out_of_bound_opt', 'test_mode', 'keep_tail_frames')
FRAMES += ('target_fps',)


def _of_ours(*classes: type) -> dict[str, set[str]]:
    return {cls.__name__: {*arguments_of(cls)} - {*TRAINING} for cls in classes}


CROPS = {'ThreeCrop': 3, 'TenCrop': 10}  # how many views a step makes
# key of an entry -> the types that it may have -> their arguments. Deltas in DELTAS are there already; add a new
# backbone, head, attention or transform here, or it cannot be packed
ENTRIES: dict[str, dict[str, Iterable[str]]] = {
    'model': {
        'PETLRecognizer3D': ('backbone', 'cls_head', 'data_preprocessor', 'petl', 'test_cfg'),
        'PETLImageClassifier': ('backbone', 'neck', 'head', 'data_preprocessor', 'petl'),
    },
    'backbone': {
        **{'SwinTransformer3D': SWIN3D, 'SwinTransformer': SWIN, 'VisionTransformer': {*VIT, *VIDEOMAE}},
        **{'TimmBackbone': libraries.TIMM, 'HFBackbone': libraries.HF},
    },
    'cls_head': _of_ours(PETLVideoHead, PETLTokenHead),
    'head': _of_ours(PETLImageHead),
    'neck': {'GlobalAveragePooling': ()},
    'data_preprocessor': {
        'ActionDataPreprocessor': ('mean', 'std', 'to_rgb', 'to_float32', 'format_shape'),
        'ClsDataPreprocessor': ('mean', 'std', 'to_rgb', 'pad_size_divisor', 'pad_value'),
    },
    'deltas': {cls.__name__: {*options_of(cls), 'at'} for cls in DELTAS},
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
# entries without a type, by key
ARCH = ('embed_dims', 'depths', 'num_heads', 'num_layers', 'feedforward_channels')
OPTIONS = {'options': libraries.TIMM_OPTIONS, 'config': libraries.HF_CONFIG}  # of backbones of other libraries
PLAIN = {
    'petl': PETL_KEYS,
    'spt': ('structured', 'rank', 'dropout'),
    'test_cfg': ('max_testing_views',),
    'arch': ARCH,
    **OPTIONS,
}
TRAIN = {'all', 'head'}.union(*(layout.groups for key in LAYOUTS for layout in forms(key)))
WORDS = re.compile(r'[A-Za-z0-9_ +-]{0,64}')
MOST, MOST_PARTS, MOST_BLOCKS, MOST_HOSTED, MOST_NUMBERS = 1_000_000, 1000, 64, 512, 1 << 29
# whole numbers, the least and the most that each may be: loops run over them, and sizes follow from them
WIDTHS = ('embed_dims', 'feedforward_channels', 'in_channels', 'd_bottle', 'd_middle', 'rank', 'num_tokens')
MODEL = {
    **dict.fromkeys(WIDTHS, (1, MOST)),
    **dict.fromkeys(('depths', 'num_layers', 'depth'), (1, MOST_BLOCKS)),
    **dict.fromkeys(('num_heads', 'patch_size', 'window_size', 'num_frames', 'tubelet_size'), (1, 1024)),
    'img_size': (1, 8192),
    'frames': (1, 1024),
    'num_classes': (1, MOST_CLASSES),
    'out_indices': (-1, MOST_BLOCKS),
    'pad_size_divisor': (1, 512),
    'kernel': (1, 15),
    'max_testing_views': (1, MOST),
}
PIPELINE = {
    **dict.fromkeys(('clip_len', 'num_clips'), (1, 1024)),
    **dict.fromkeys(('scale', 'crop_size', 'size'), (-1, 8192)),
    'frame_interval': (0, 1024),
    'num_threads': (0, 64),
}
SIZES = {'pipeline': PIPELINE, 'library': libraries.LIMITS}
# what may be a list, and what is never a word
LISTS = ('depths', 'num_heads', 'img_size', 'patch_size', 'window_size', 'out_indices', 'mean', 'std')
LISTS += ('scale', 'crop_size', 'size', 'kernel')
NUMBERS = ('eps', 'momentum')


def checked_model(config: Any) -> dict[str, Any]:
    """Return a model's config; its lists of plain values become tuples, as configs have them.

    Raises:
        UserError: for a type, an argument or a value that a bundle may not have.
    """
    model = _entry('model', config, 'model')
    backbone = model.get('backbone') or {}
    arch = backbone['arch'] if isinstance(backbone.get('arch'), Mapping) else backbone
    if backbone.get('type') in ('TimmBackbone', 'HFBackbone'):
        blocks = libraries.check_library(backbone)
    else:
        blocks = sum(sum(_flat(arch.get(name))) for name in ('depths', 'num_layers', 'depth'))
    if blocks > MOST_BLOCKS:
        raise UserError(f'model.backbone has {blocks:,} blocks, and a bundle may have {MOST_BLOCKS}.')
    deltas = (model.get('petl') or {}).get('deltas') or {}
    if blocks * len(deltas) > MOST_HOSTED or len(deltas) > MOST_BLOCKS:
        raise UserError(f'model.petl.deltas has {len(deltas)}, too many for {blocks} blocks.')
    return model


def checked_pipeline(steps: Any) -> list[dict[str, Any]]:
    """Return the steps of a test pipeline, checked as by :func:`checked_model`."""
    if not isinstance(steps, list) or not 0 < len(steps) <= 50:
        raise UserError('pipeline is not a list of steps.')
    steps = [_entry('pipeline', step, f'pipeline[{i}]') for i, step in enumerate(steps)]
    frames, side = views_of(steps), 1
    for step in steps:
        frames *= step.get('clip_len') or 1
        side = max([side, *(n for name in ('scale', 'crop_size', 'size') for n in _flat(step.get(name)))])
    if frames * side**2 * 3 > MOST_NUMBERS:
        raise UserError(f'pipeline would read {frames:,} frames of up to {side:,} pixels a side, for one clip.')
    return steps


def views_of(steps: Iterable[Mapping[str, Any]]) -> int:
    """Return how many views of one input the steps of a test pipeline make."""
    return math.prod((step.get('num_clips') or 1) * CROPS.get(step['type'], 1) for step in steps)


def _flat(value: Any) -> tuple[int, ...]:
    """Return a whole number, or several, as a tuple; nothing for None."""
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _entry(section: str, config: Any, name: str) -> dict[str, Any]:
    """Check an entry with a type; ``section`` says which types it may have."""
    kinds = ENTRIES[section]
    kind = config.get('type') if isinstance(config, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f'{name}.type is {brief(kind)}, and a bundle may have {", ".join(kinds)} there.')
    arguments = {k: v for k, v in config.items() if k != 'type'}
    return {'type': kind, **_arguments(section, arguments, kinds[kind], f'{name}', f' ({kind})')}


def _arguments(
    section: str, config: Mapping[Any, Any], known: Iterable[str], name: str, of: str = ''
) -> dict[str, Any]:
    for argument in config:
        if argument not in known:
            raise UserError(f'{name}{of} has {brief(argument)}, which a bundle cannot hold.')
    return {k: _argument(section, k, v, f'{name}.{k}') for k, v in config.items()}


def _argument(section: str, key: str, value: Any, name: str) -> Any:
    if key == 'deltas' and value is not None:
        if not isinstance(value, Mapping):
            raise UserError(f'{name} is {brief(value)}, and has to be a dict.')
        if not all(isinstance(n, str) and n.isidentifier() and n.isascii() and n[0] != '_' for n in value):
            raise UserError(f'{name} has a name that a bundle cannot hold.')
        return {n: None if v is None else _entry(key, v, f'{name}.{n}') for n, v in value.items()}
    if key == 'train':
        if not isinstance(value, (list, tuple)) or not TRAIN.issuperset(map(str, value)):
            raise UserError(f'{name} is {brief(value)}, and a bundle may list {", ".join(sorted(TRAIN))}.')
        return tuple(value)
    if (section, key) == ('backbone', 'model') and isinstance(value, str) and libraries.TIMM_NAME.fullmatch(value):
        return value
    if key in ENTRIES and value is not None:
        return _entry(key, value, name)
    if key in PLAIN and isinstance(value, Mapping):
        return _arguments('library' if key in OPTIONS else section, value, PLAIN[key], name)
    if key in PLAIN and value is not None and not (key == 'arch' and isinstance(value, str)):
        raise UserError(f'{name} is {brief(value)}, and has to be a dict.')
    if section == 'library' and key in libraries.LISTS and isinstance(value, (list, tuple)):
        return [*_plain('size', value, name, libraries.LIMITS[key])]  # as a dict of transformers has them
    return _plain(key, value, name, SIZES.get(section, MODEL).get(key))


def _plain(key: str, value: Any, name: str, limits: tuple[int, int] | None) -> Any:
    """Check text, a number or a list of these; of a whole number with ``limits``, these."""
    if key in LISTS and isinstance(value, (list, tuple)) and len(value) <= MOST_PARTS:
        if any(part is None or isinstance(part, (list, tuple)) for part in value):
            raise UserError(f'{name} is {brief(value)}, which is no list of plain values.')
        return tuple(_plain(key, part, name, limits) for part in value)
    if limits:
        right = value is None or (type(value) is int and limits[0] <= value <= limits[1])
        span = f'; it is a whole number from {limits[0]} to {limits[1]:,}'
    else:
        right = value is None or (isinstance(value, (int, float)) and abs(value) <= MOST)
        right, span = right or (key not in NUMBERS and isinstance(value, str) and WORDS.fullmatch(value)), ''
    if not right:
        raise UserError(f'{name} is {brief(value)}, which a bundle cannot hold{span}.')
    return value
