"""Reads files of weights without running what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from ..bounds import check_zip
from ..errors import UserError
from .contents import format_of, must_be_file
from .shards import is_index, read_shards, weights_size
from .tensors import StateDict
from .torch_file import CODE, allowed, check_content, read_torch, reason_of
from .wrappings import Model, chosen, models_in, tensors_in

# where checkpoints without a backbone keep their weights: most libraries; timm and MAE; DeepSpeed
INSIDE = ('state_dict', 'model', 'module')
FORMATS = {
    'index': 'an index of .safetensors files',
    'safetensors': 'a .safetensors file',
    'npz': 'an .npz archive of numbers',
    'torch': 'a file of torch.save',
}


@dataclass(frozen=True)
class Source:
    """The content of a file.

    Args:
        state: its tensors.
        beside: the names of everything beside them, such as ``optimizer``.
        metadata: of a .safetensors file.
        model: where in the file the backbone is.
        others: further backbones in it.
    """

    state: StateDict
    beside: tuple[str, ...]
    metadata: dict[str, str]
    model: Model
    others: tuple[Model, ...]


def read_source(file: str | Path, trust_pickle: bool = False, part: str | None = None) -> Source:
    """Read a file of safetensors, numpy or torch, whatever its suffix.

    The tensors are taken out of the dicts that they are nested in; a prefix in front of their keys stays.

    Args:
        file: its path.
        trust_pickle: let a pickle run its code if it holds more than tensors. Defaults to False.
        part: which of several models, by a part of its name, such as ``'model_ema'``.

    Raises:
        UserError: when the file is missing, broken or without weights, or holds more than is allowed.
    """
    path = Path(file)
    must_be_file(path)
    form = 'torch'
    try:
        form = 'index' if is_index(path) else format_of(path)
        source = _located(*_content(path, form, trust_pickle), part)
        check_content(source.state, weights_size(path))
    except UserError as error:
        raise UserError(f'{path}: {str(error).rstrip(".")}.') from error
    except Exception as error:
        raise UserError(_refusal(path, form, error)) from error
    if not source.state:
        beside = f'; it has {", ".join(source.beside[:5])}' if source.beside else ''
        raise UserError(f'{path} holds no weights at its top or in {", ".join(INSIDE)}{beside}.')
    return source


def _content(path: Path, form: str, trust_pickle: bool) -> tuple[Any, dict[str, str]]:
    """Read what a file holds, and its metadata."""
    if form == 'torch':
        return read_torch(path, trust_pickle), {}
    if form == 'index':
        return read_shards(path), {}
    if form == 'safetensors':
        with safe_open(path, 'pt') as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
    check_zip(path, allowed(path))
    with np.load(path, allow_pickle=False) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    numbers = {k: v.astype(v.dtype.newbyteorder('=')) for k, v in content.items() if v.dtype.kind in 'fiu'}
    return content | {k: torch.from_numpy(v) for k, v in numbers.items()}, {}


def _located(content: Any, metadata: dict[str, str], part: str | None) -> Source:
    """Find the backbone in what a file holds."""
    meta = content.get('meta') if isinstance(content, dict) else None
    is_adapter = isinstance(meta, dict) and 'adapter_format' in meta
    # the adapter of a fully tuned model does hold the backbone
    if is_adapter and not any(
        k.startswith('backbone.') and '.deltas.' not in k for k in content.get('state_dict') or {}
    ):
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
    return Source(tensors, tuple(beside), metadata, model, tuple(m for m in models if m != model))


def _usual(content: Any) -> Model:
    """Return where the weights would be in a checkpoint without a backbone."""
    inside: tuple[str, ...] = ()
    for key in INSIDE:
        if isinstance(content, dict) and isinstance(content.get(key), (dict, nn.Module)):
            inside, content = (*inside, key), content[key]
    return Model(inside)


def _refusal(path: Path, form: str, error: Exception) -> str:
    """Say in a sentence why a file was not read."""
    reason = reason_of(error)
    if CODE in reason:
        return (
            f'{path} cannot be read safely: {reason}, which may run code. If you trust its source: '
            f'tools/convert_checkpoint.py {path} DST.safetensors --trust-pickle'
        )
    if isinstance(error, ModuleNotFoundError):
        return f'{path} needs a package that is not installed: {error.name}.'
    return f'{path} cannot be read as {FORMATS[form]}; is it complete? ({reason})'
