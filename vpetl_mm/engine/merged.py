"""Merged files: a plain model of the host library, with the deltas and the head's BatchNorm in its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmengine import Config
from safetensors import safe_open
from torch import nn

from ..errors import UserError
from ..petl import merge
from ..petl.merging import check_mergeable
from ..weights.files import write_safetensors
from .record import json_safe

KEY = 'vpetl_mm_merged'
# arguments of this project's models and heads that no host library knows
OWN = ('petl', 'base', 'bn', 'temporal_pool')
# what a data_preprocessor does only in training
MIXING = ('blending', 'batch_augments')


def check_plain(model: nn.Module) -> None:
    """Raise :class:`UserError` if a PETL model, on any device, cannot become a plain one of its host library."""
    check_mergeable(model)
    if getattr(getattr(model, model.head_name), 'temporal_pool', 'mean') != 'mean':
        raise UserError(
            "The head's temporal_pool='overlap' weights frames as no head of mmaction2 does: it has no plain model."
        )


def make_plain(model: nn.Module) -> None:
    """Merge a PETL model's deltas into its backbone, and the head's BatchNorm into its linear layer, in place."""
    check_plain(model)
    merge(model)
    head = getattr(model, model.head_name)
    if hasattr(head, 'fold'):
        head.fold()


def plain_config(model: nn.Module, cfg: Config) -> dict[str, Any]:
    """Return the ``default_scope`` and ``model`` of a config that builds ``model`` without this package.

    The model has been made plain, and ``cfg`` is its config.
    """
    head = getattr(model, model.head_name)
    plain = json_safe({k: v for k, v in cfg.model.items() if k not in OWN})
    plain['type'] = _library_class(model)
    plain[model.head_name] = {
        **{k: v for k, v in plain[model.head_name].items() if k not in OWN},
        'type': _library_class(head),
        # whose defaults differ from the host library's
        **{k: getattr(head, k) for k in ('average_clips', 'dropout_ratio') if hasattr(head, k)},
    }
    if plain.get('data_preprocessor'):
        given = {k: v for k, v in plain['data_preprocessor'].items() if k not in MIXING}
        plain['data_preprocessor'] = dict(given, type=_library_class(model.data_preprocessor))
    return dict(default_scope=cfg.get('default_scope', 'mmaction'), model=plain)


def _library_class(module: nn.Module) -> str:
    """Return the name of a module's class, or of the host library's class that it is based on."""
    return next(c.__name__ for c in type(module).__mro__ if not c.__module__.startswith('vpetl_mm.'))


def write_merged(model: nn.Module, file: Path, cfg: Config, checkpoint: str | Path) -> None:
    """Write a plain model as .safetensors, whole or not at all.

    The keys are those of the host library's own model. The header holds, as JSON under ``vpetl_mm_merged``, its
    ``config`` and ``checkpoint``, and :func:`plain_config`.

    Raises:
        UserError: when it cannot be written.
    """
    about = dict(config=str(cfg.filename), checkpoint=str(checkpoint), **plain_config(model, cfg))
    write_safetensors(file, model.state_dict(), {KEY: json.dumps(about)})


def describe_merged(file: str | Path) -> str:
    """Return, as the end of a sentence, a merged file's classes and how their inputs are normalised."""
    with safe_open(file, 'pt') as opened:
        about = json.loads(opened.metadata()[KEY])
    model = about['model']
    head = model.get('head') or model['cls_head']
    given = model.get('data_preprocessor') or {}
    inputs = f'normalised with mean {given["mean"]} and std {given["std"]}' if given.get('mean') else 'as they are'
    return f"{about['default_scope']}'s {model['type']} with {head['type']}, for RGB inputs of 0 to 255 {inputs}"
