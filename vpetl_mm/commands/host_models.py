"""From what a user calls a model to the model without values, and a way to run it."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vpetl_cli.shipped import configs, experiments, find_config

from ..errors import UserError, did_you_mean, reason
from ..petl.meta import meta_copy


@dataclass(frozen=True)
class NamedModel:
    """A model on the meta device.

    Args:
        model: itself.
        source: where it is from, as text.
        run: calls it once, on inputs without values; None where nobody says what it takes.
    """

    model: nn.Module
    source: str
    run: Callable[[nn.Module], Any] | None


def named_model(name: str, sides: tuple[int, ...] | None = None) -> NamedModel:
    """Return the model of a name.

    Args:
        name: of timm, a model type, class, folder or cached name of transformers, an experiment, or
            ``module:callable``.
        sides: the shape of one input, such as (3, 224, 224). Defaults to None, what the model's library says.

    Raises:
        UserError: for an unknown name, with the nearest, and for a model that cannot be built.
    """
    for source in (_of_python, _of_timm, _of_config, _of_transformers):
        try:
            answer = source(name)
        except UserError:
            raise
        except Exception as error:  # whatever the code of a model raises
            raise UserError(f'{name} cannot be built: {reason(error)}') from error
        if answer is not None:
            run = answer.run if sides is None else partial(_call, shapes=[sides])
            return NamedModel(answer.model.eval(), answer.source, run)
    raise UserError(
        f'{name!r} is no model of timm or transformers, no experiment and no module:callable.{_near(name)}'
    )


def _call(model: nn.Module, shapes: list[tuple[int, ...]], name: str = '') -> Any:
    inputs = [torch.zeros(2, *shape, device='meta') for shape in shapes]
    return model(**{name: inputs[0]}) if name else model(*inputs)


def _has(library: str) -> bool:
    return find_spec(library) is not None


def _near(name: str) -> str:
    names = [*experiments(configs())]
    if _has('timm'):
        import timm

        names += timm.list_models()
    if _has('transformers'):
        from transformers import CONFIG_MAPPING

        names += CONFIG_MAPPING.keys()
    missing = [n for n in ('timm', 'transformers') if not _has(n)]
    return did_you_mean(name, names) + (f' Not installed: {", ".join(missing)}.' if missing else '')


def _of_python(name: str) -> NamedModel | None:
    """Build the model of ``module:callable``, of the current folder or an installed package."""
    if ':' not in name or name.startswith('hf-hub:'):
        return None
    sys.path.insert(0, '')
    try:
        made = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f'{name} cannot be imported: {reason(error)}') from error
    finally:
        sys.path.remove('')
    if not isinstance(made, nn.Module):
        with torch.device('meta'):
            made = made()
    if not isinstance(made, nn.Module):
        raise UserError(f'{name} returns {_kind(made)}, not an nn.Module.')
    return NamedModel(meta_copy(made), name, None)


def _kind(value: Any) -> str:
    return 'None' if value is None else f'a {type(value).__name__}'


def _of_timm(name: str) -> NamedModel | None:
    if not _has('timm'):
        return None
    import timm

    own = name.removeprefix('hf-hub:').removeprefix('timm/')
    if not timm.is_model(own.partition('.')[0]):
        return None
    with torch.device('meta'):
        model = timm.create_model(own)
    return NamedModel(model, f'timm {timm.__version__}', partial(_call, shapes=[model.default_cfg['input_size']]))


def _of_config(name: str) -> NamedModel | None:
    known = name.endswith('.py') or Path(name).stem in experiments(configs())
    if not known:
        return None
    path = find_config(name)
    if not _has('mmengine'):
        raise UserError(f'{path} is an experiment, and needs OpenMMLab.')
    from ..config import load_config
    from ..models.build import build_model
    from ..petl.host import detach

    cfg = load_config(path)
    model = build_model(cfg, meta=True)
    if hasattr(model, 'plan'):
        for module in [m for m in model.modules() if isinstance(m._modules.get('deltas'), nn.ModuleDict)]:
            detach(module)
    return NamedModel(model, str(path), None)


def _of_transformers(name: str) -> NamedModel | None:
    if not _has('transformers'):
        return None
    import transformers
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

    cls = getattr(transformers, name, None) if name.isidentifier() else None
    if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel) and cls.config_class is not None:
        config = cls.config_class()
    elif name in CONFIG_MAPPING:
        config = AutoConfig.for_model(name)
    elif Path(name, 'config.json').is_file() or '/' in name:
        try:
            config = AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f'{name} is no folder with a config.json of transformers, and not in the cache of Hugging Face: give '
                'its model type, such as dinov3_vit, or run "hf download" where there is a network.'
            ) from error
    else:
        return None
    with torch.device('meta'):
        if isinstance(cls, type):
            model = cls(config)
        else:
            config = getattr(config, 'vision_config', config)
            # named here: a config may name an attention that is fetched from the hub
            model = AutoModel.from_config(config, trust_remote_code=False, attn_implementation=_attention_of(config))
    return NamedModel(model, f'transformers {transformers.__version__}', _run_of(model))


def _attention_of(config: Any) -> str:
    """Return torch's attention, or the model's own where transformers does not serve it with torch's."""
    from transformers import MODEL_MAPPING

    cls = MODEL_MAPPING.get(type(config), None)
    return 'sdpa' if getattr(cls, '_supports_sdpa', False) else 'eager'


def _run_of(model: Any) -> Callable[[nn.Module], Any] | None:
    """Return how a vision model of transformers is called, by what its config says of images and frames."""
    config = model.config
    side = getattr(config, 'image_size', None) or getattr(config, 'crop_size', None)
    if side is None:
        return None
    sides = tuple(side) if isinstance(side, (list, tuple)) else (side, side)
    frames = getattr(config, 'num_frames', None) or getattr(config, 'frames_per_clip', None)
    shape = (getattr(config, 'num_channels', None) or 3, *sides)
    return partial(_call, shapes=[(frames, *shape) if frames else shape], name=model.main_input_name)
