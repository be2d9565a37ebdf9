"""Files of weights: opened without running what is in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from ..bounds import check_zip
from ..errors import UserError, tellable
from .contents import format_of, must_be_file
from .tensors import StateDict
from .torch_file import allowed, check_content, read_torch
from .wrappings import Model, chosen, models_in, tensors_in

# where checkpoints keep their weights, for what is no backbone: most libraries; timm and MAE; DeepSpeed
INSIDE = ('state_dict', 'model', 'module')
FORMATS = {'safetensors': 'a .safetensors file', 'npz': 'an .npz archive of numbers', 'torch': 'a file of torch.save'}


@dataclass(frozen=True)
class Source:
    """What a file holds.

    Args:
        state: its tensors.
        beside: the names of what lies beside them and is none, such as ``optimizer``.
        metadata: of a .safetensors file.
        model: where in the file the backbone is.
        others: further backbones in it.
    """

    state: StateDict
    beside: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    model: Model = field(default_factory=Model)
    others: tuple[Model, ...] = ()


def read_weights(file: str | Path) -> StateDict:
    """The tensors of a file; see :func:`read_source`."""
    return read_source(file).state


def read_source(file: str | Path, trust_pickle: bool = False, part: str | None = None) -> Source:
    """A file of safetensors, numpy or torch, whatever its name ends in.

    The tensors are taken out of the dicts that they are nested in; those in front of which is a prefix keep it.

    Args:
        file: its path.
        trust_pickle: let a pickle run what it holds, where it needs more than tensors.
        part: which of several models, by a part of its name, such as ``'model_ema'``.

    Raises:
        UserError: when the file is missing, broken, holds no weights, or needs more than is allowed.
    """
    path = Path(file)
    must_be_file(path)
    form = 'torch'
    try:
        form = format_of(path)
        if form == 'safetensors':
            source = _in_model(_safetensors(path), part)
        elif form == 'npz':
            source = _in_model(_npz(path), part)
        else:
            source = _unwrapped(read_torch(path, trust_pickle), part)
        check_content(source.state, path.stat().st_size)
    except UserError as error:
        raise UserError(f'{path}: {str(error).rstrip(".")}.') from error
    except Exception as error:
        raise UserError(_refusal(path, form, error)) from error
    if not source.state:
        beside = f'; it has {", ".join(source.beside[:5])}' if source.beside else ''
        raise UserError(f'{path} holds no weights at its top or in {", ".join(INSIDE)}{beside}.')
    return source


def _safetensors(path: Path) -> Source:
    with safe_open(path, 'pt') as file:
        return Source({k: file.get_tensor(k) for k in file.keys()}, (), file.metadata() or {})  # noqa: SIM118


def _npz(path: Path) -> Source:
    check_zip(path, allowed(path))
    with np.load(path, allow_pickle=False) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    numbers = {k: v for k, v in content.items() if v.dtype.kind in 'fiu'}
    tensors = {k: torch.from_numpy(v.astype(v.dtype.newbyteorder('='))) for k, v in numbers.items()}
    return Source(tensors, tuple(k for k in content if k not in numbers))


def _in_model(source: Source, part: str | None) -> Source:
    """A file without dicts, and which of its keys are the backbone's."""
    models = models_in(source.state)
    model = chosen(models, part)
    return source if model is None else replace(source, model=model, others=_others(models, model))


def _unwrapped(content: Any, part: str | None) -> Source:
    meta = content.get('meta') if isinstance(content, dict) else None
    if isinstance(meta, dict) and 'adapter_format' in meta and not _has_backbone(content.get('state_dict') or {}):
        raise UserError('it is an adapter of this project, which holds no backbone.')
    models = models_in(content)
    model = chosen(models, part) or _usual(content)
    beside: list[str] = []
    for key in model.inside:
        beside += [str(k) for k in content if k != key]
        content = content[key]
    tensors = tensors_in(content)
    if isinstance(content, dict):
        beside += [str(k) for k in content if k not in tensors]
    return Source(tensors, tuple(beside), model=model, others=_others(models, model))


def _usual(content: Any) -> Model:
    """Where weights that are no backbone's would be."""
    inside: tuple[str, ...] = ()
    for key in INSIDE:
        if isinstance(content, dict) and isinstance(content.get(key), (dict, nn.Module)):
            inside, content = (*inside, key), content[key]
    return Model(inside)


def _others(models: list[Model], taken: Model) -> tuple[Model, ...]:
    return tuple(m for m in models if m != taken)


def _has_backbone(state: dict[str, Any]) -> bool:
    """Whether an adapter holds weights of the backbone itself, as that of a fully tuned model does."""
    return any(key.startswith('backbone.') and '.deltas.' not in key for key in state)


def _refusal(path: Path, form: str, error: Exception) -> str:
    """Why a file was not read, in a sentence."""
    wanted = re.search(r'GLOBAL (\S+)', str(error))
    if wanted:
        return (
            f'{path} cannot be read safely as weights: it holds more than tensors, {tellable(wanted[1])}, and '
            'reading that may run code; if you trust where it is from: '
            f'tools/convert_checkpoint.py {path} DST.safetensors --trust-pickle'
        )
    if isinstance(error, ModuleNotFoundError):
        return f'{path} needs a package that is not installed: {error.name}.'
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    first = '' if 'eights only load failed' in first or first.isdecimal() else f' ({first.rstrip(".")})'
    return f'{path} cannot be read as {FORMATS[form]}; is it whole?{first}'
