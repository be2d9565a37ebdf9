"""How a backbone wants its inputs normalised, from its library instead of from every config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.logging import print_log
from mmengine.registry import MODELS

from ..errors import UserError

# by the head: the preprocessor that a config gets which names none
PREPROCESSORS = {
    'head': dict(type='ClsDataPreprocessor'),
    'cls_head': dict(type='ActionDataPreprocessor', format_shape='NCTHW'),
}


class Inputs(NamedTuple):
    """What a backbone was trained on.

    Args:
        mean: of R, G and B, between 0 and 255.
        std: of the same.
        size: (H, W); None where it is not told.
        interpolation: of the resize, such as ``'bicubic'``; '' where it is not told.
        crop: the share of a resized image's side that the centre crop keeps.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None
    interpolation: str = ''
    crop: float = 1.0

    @classmethod
    def of_unit(cls, mean: Sequence[float], std: Sequence[float], *others: Any, scale: float = 255.0) -> Inputs:
        """Return inputs from a mean and a std of values that were divided by ``scale``, rounded to 1e-4."""
        return cls(*(tuple(round(scale * float(v), 4) for v in values) for values in (mean, std)), *others)


def inputs_of(backbone: Any) -> Inputs | None:
    """Return what a backbone's config says of its inputs; None for one whose class does not say."""
    cls = _class_of(backbone)
    if not hasattr(cls, 'inputs_of'):
        return None
    return cls.inputs_of({k: v for k, v in backbone.items() if k != 'type'})


def normalising(preprocessor: Any, backbone: Any, head: str) -> Any:
    """Return a data preprocessor's config with the backbone's own mean and std where it has none.

    Args:
        preprocessor: the config, or None.
        backbone: its config; of a class without ``inputs_of`` nothing is known, and nothing changes.
        head: ``'head'`` for images, ``'cls_head'`` for clips.

    Raises:
        UserError: where neither says them.
    """
    if preprocessor is not None and not isinstance(preprocessor, Mapping):
        return preprocessor
    if not hasattr(_class_of(backbone), 'inputs_of'):
        return preprocessor
    inputs, given = inputs_of(backbone), dict(preprocessor or {})
    named = [name for name in ('mean', 'std') if given.get(name) is not None]
    if inputs is None and len(named) < 2:
        raise UserError(
            'Nothing says how the inputs of model.backbone are normalised: there is no preprocessor_config.json; '
            'set model.data_preprocessor.mean and std, of R, G and B, between 0 and 255.'
        )
    given = {**PREPROCESSORS[head], **given}
    if not named:
        given.update(mean=[*inputs.mean], std=[*inputs.std])
    elif inputs is not None:
        _warn_of_others(inputs, given)
    return given


def _class_of(backbone: Any) -> Any:
    kind = backbone.get('type') if isinstance(backbone, Mapping) else None
    with MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(kind) if isinstance(kind, str) else kind


def _warn_of_others(inputs: Inputs, given: Mapping[str, Any]) -> None:
    pairs = [(given.get(name), getattr(inputs, name)) for name in ('mean', 'std')]
    if all(own is not None and np.shape(own) == (3,) and np.allclose(own, of_model, 1e-3) for own, of_model in pairs):
        return
    print_log(
        f'model.backbone was trained on inputs of mean {[*inputs.mean]} and std {[*inputs.std]} (R, G, B), but '
        f'model.data_preprocessor normalises with mean {given.get("mean")} and std {given.get("std")}; leave both '
        "out for the model's own.",
        'current',
        30,
    )
