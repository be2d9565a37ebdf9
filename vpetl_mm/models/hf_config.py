"""Where a model of Hugging Face's transformers is described: a dict, a folder, or the cache of the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean, reason
from .inputs import Inputs

# what processors are called on disk, the most particular first
PROCESSORS = ('video_preprocessor_config.json', 'preprocessor_config.json', 'processor_config.json')
IMAGENET = Inputs.of_unit((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Inputs.of_unit((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# model_type -> what all published weights of it were trained on; ViT's were not trained alike
PUBLISHED = {
    **dict.fromkeys(('dinov2', 'dinov3_vit', 'swin', 'videomae', 'vjepa2'), IMAGENET),
    **dict.fromkeys(('siglip', 'siglip_vision_model', 'siglip2', 'siglip2_vision_model'), HALF),
    'timesformer': Inputs.of_unit((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
}


# options of models that hold another model, and read it from the hub
FETCHED = ('backbone', 'backbone_config', 'backbone_kwargs', 'use_pretrained_backbone', 'use_timm_backbone')


def folder_of(model: str) -> Path:
    """Return the folder that holds a model's ``config.json``: itself, or where the hub's cache has it.

    Raises:
        UserError: where there is none, with how to get it; nothing is fetched.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(model).is_dir():
        if not Path(model, 'config.json').is_file():
            raise UserError(f'model.backbone.model: the folder {model} has no config.json.')
        return Path(model)
    try:
        found = try_to_load_from_cache(model, 'config.json')
    except HFValidationError as error:
        raise UserError(f'model.backbone.model={model!r} is neither a folder nor the name of a model.') from error
    if not isinstance(found, str):
        raise UserError(
            f'model.backbone.model={model!r} is neither a folder nor in the cache of Hugging Face: run "hf download '
            f'{model} config.json preprocessor_config.json" where there is a network, or describe the model in '
            'model.backbone.config.'
        )
    return Path(found).parent


def config_of(model: str | None, config: Mapping[str, Any] | None) -> Any:
    """Return the config of a vision model, of transformers' class.

    Args:
        model: a folder, or a name of the hub.
        config: instead, ``dict(model_type=..., **others)``.

    Raises:
        UserError: for both or neither, and for what transformers does not know.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    if (model is None) == (config is None):
        raise UserError('model.backbone needs model (a name of Hugging Face, or a folder) or config (a dict).')
    if config is None:
        config = _read(folder_of(model) / 'config.json')
    others = dict(config)
    kind = others.pop('model_type', None)
    if kind not in CONFIG_MAPPING:
        raise UserError(f'transformers has no model_type {kind!r}.{did_you_mean(kind, CONFIG_MAPPING)}')
    if fetched := sorted({*FETCHED} & {*others}):
        raise UserError(f'{kind} names a model inside it ({fetched[0]}), which would be fetched; it is no backbone.')
    try:
        built = AutoConfig.for_model(kind, **others)
    except Exception as error:  # its checks raise errors of its own
        raise UserError(f'transformers does not take this config of {kind}: {reason(error)}') from error
    return getattr(built, 'vision_config', built)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{file} cannot be read: {reason(error)}') from error
    if not isinstance(content, dict):
        raise UserError(f'{file} holds no dict.')
    return content


def inputs_of(model: str | None, config: Mapping[str, Any] | None) -> Inputs | None:
    """Return how a model wants its inputs: as its image processor says, or as all published weights of its kind."""
    if config is not None:
        return PUBLISHED.get(config.get('model_type'))
    folder = folder_of(model)
    for name in PROCESSORS:
        if not (folder / name).is_file():
            continue
        try:
            read = _processed(_read(folder / name))
        except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise UserError(f'{folder / name} is no image processor of transformers: {reason(error)}') from error
        if read is not None:
            return read
    return None


def _processed(processor: Mapping[str, Any]) -> Inputs | None:
    """Return the inputs of a processor's settings: (x r + o - m) / s, for x between 0 and 255."""
    for inner in ('video_processor', 'image_processor'):
        processor = processor.get(inner) or processor
    rescales, normalises = processor.get('do_rescale', True), processor.get('do_normalize', True)
    scale = 1 / float(processor.get('rescale_factor', 1 / 255)) if rescales else 1.0
    mean, std = processor.get('image_mean'), processor.get('image_std')
    if normalises and (mean is None or std is None):
        return None
    mean, std = (mean, std) if normalises else ([0.0] * 3, [1.0] * 3)
    offset = 1.0 if rescales and processor.get('offset') else 0.0  # ViViT's is -1
    size = processor.get('crop_size' if processor.get('do_center_crop') else 'size')
    sides = (size['height'], size['width']) if isinstance(size, Mapping) and 'height' in size else None
    mean, std = ([float(v)] * 3 if isinstance(v, (int, float)) else v for v in (mean, std))
    return Inputs.of_unit([m + offset for m in mean], std, sides, _interpolation(processor), scale=scale)


def _interpolation(processor: Mapping[str, Any]) -> str:
    return {0: 'nearest', 1: 'lanczos', 2: 'bilinear', 3: 'bicubic'}.get(processor.get('resample'), '')
