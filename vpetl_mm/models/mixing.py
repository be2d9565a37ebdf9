"""Mixup and CutMix of the hosts' data preprocessors, with labels over the head's classes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.registry import MODELS

from ..errors import UserError


def mixing_preprocessor(preprocessor: Any, train_cfg: Any, classes: int | None) -> Any:
    """Return a data preprocessor's config with the head's ``num_classes`` wherever it makes soft labels.

    Args:
        preprocessor: mmaction2's, with ``blending``, or mmpretrain's, with ``batch_augments``; others stay.
        train_cfg: of mmpretrain's ImageClassifier, where ``batch_augments`` can also stand.
        classes: of the head.

    Returns:
        The config, or on the meta device the preprocessor itself: a Beta distribution checks its values.

    Raises:
        UserError: when it names another number, or an ``alpha`` that no Beta distribution takes.
    """
    if not isinstance(preprocessor, Mapping) and not train_cfg:
        return preprocessor
    preprocessor = copy.deepcopy(dict(preprocessor or {}))
    for spec in _with_labels(preprocessor, train_cfg):
        alpha = spec.get('alpha', 1.0)
        if not isinstance(alpha, (int, float)) or not alpha > 0:  # after torch.compile, Beta no longer checks it
            raise UserError(f'model.data_preprocessor.blending.alpha must be a number above 0, got {alpha!r}.')
        if spec.get('num_classes') is None:
            spec['num_classes'] = classes
        if spec['num_classes'] != classes:
            raise UserError(
                f'model.data_preprocessor mixes labels of {spec["num_classes"]} classes, and the head has {classes}; '
                'leave num_classes out there.'
            )
    if preprocessor.get('blending') and torch.get_default_device().type == 'meta':
        with torch.device('cpu'):
            return MODELS.build(preprocessor)
    return preprocessor


def _with_labels(preprocessor: dict[str, Any], train_cfg: Any) -> Iterator[dict[str, Any]]:
    if preprocessor.get('batch_augments') or preprocessor.get('to_onehot') or train_cfg:
        yield preprocessor
    blending = preprocessor.get('blending') or {}
    several = blending.get('augments', [blending] if blending else [])
    yield from [several] if isinstance(several, Mapping) else several
