"""Weights of Hugging Face's transformers: read by ``from_pretrained``, which knows the names of all its versions."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, reason
from ..petl.exchange import plain_class
from .tensors import StateDict, Weights

WRONG = (
    KeyError,
    ValueError,
    RuntimeError,
    AttributeError,
    TypeError,
    IndexError,
    AssertionError,
    NotImplementedError,
)
# of a task, of pre-training or of another modality, dropped where the model has no such part
FOREIGN = r'(\w+\.)?(\w*classifier\w*|head|fc_norm|pooler|decoder|encoder_to_decoder|mask_token|lm_head|cls|predictor'
FOREIGN += r'|text_model|text_projection|visual_projection|logit_scale|logit_bias|vision_model\.head)(\.|$)'
POSITIONS = 'position_embedding'


def fit_transformers(weights: Weights, model: nn.Module) -> None:
    """Rename a file's tensors for a model of transformers, and resize its position embedding.

    What belongs to a task, such as a classifier, is dropped with a remark where the model has no such part.

    Args:
        weights: without a prefix, except for transformers' own, such as ``vit.``.
        model: of transformers, on any device, also meta.

    Raises:
        UserError: when transformers cannot make them fit.
    """
    try:
        loaded, told = _load(model, model.config, weights.tensors)
        wrong = dict(_mismatch(entry, weights.tensors) for entry in told['mismatched_keys'])
        tables = {name: _resized(model, name, there, weights.tensors) for name, there in wrong.items()}
    except WRONG as error:
        raise UserError(
            f'transformers cannot fit it to {plain_class(model).__name__}: {reason(error, 160)}.'
        ) from error
    resized = {name: table for name, table in tables.items() if table is not None}
    missing, unknown, own = {*told['missing_keys']}, {*told['unexpected_keys']}, model.state_dict()
    # a tensor of the file's shape stands for what does not fit, so that the report names both
    there = {n: torch.zeros(()).expand(shape) for n, shape in wrong.items()}
    kept = {
        n: {**there, **resized}.get(n, v) for n, v in loaded.state_dict().items() if n in own and n not in missing
    }
    # transformers 4 tells them without the prefix
    left = {n: v for n, v in weights.tensors.items() if any(f'.{n}'.endswith(f'.{u}') for u in unknown)}
    weights.become({**kept, **left}, 'by the rules of transformers')
    weights.drop_foreign(FOREIGN, own)


def _load(model: nn.Module, config: Any, state: StateDict) -> tuple[nn.Module, Mapping[str, Any]]:
    """Load tensors into a new model of the same class; return it, and what did not fit."""
    cls = plain_class(model)
    options = {} if getattr(model, 'pooler', None) is not None else dict(add_pooling_layer=False)
    options = {name: value for name, value in options.items() if name in signature(cls.__init__).parameters}
    with _quiet():
        return cls.from_pretrained(
            None,
            config=config,
            state_dict=dict(state),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            attn_implementation='eager',
            **options,
        )


def _mismatch(entry: Any, state: StateDict) -> tuple[str, tuple[int, ...]]:
    """Return the name and the shape in the file of what does not fit; transformers 4 tells the name alone."""
    if not isinstance(entry, str):
        return entry[0], tuple(entry[1])
    return entry, next(tuple(v.shape) for k, v in state.items() if f'.{k}'.endswith(f'.{entry}'))


def _resized(model: nn.Module, name: str, shape: tuple[int, ...], state: StateDict) -> Tensor | None:
    """Return a table of positions in the size of ``model``, by its own method; None where it has none.

    Args:
        model: whose ``config`` has ``image_size`` and ``patch_size``.
        name: of the table.
        shape: that it has in the file.
        state: the file's tensors.
    """
    own, config = model.state_dict()[name], copy.deepcopy(model.config)
    sizes = [_pair(getattr(config, n, None)) for n in ('image_size', 'patch_size')]
    if POSITIONS not in name or None in sizes or len(shape) < 2 or shape[-1] != own.shape[-1]:
        return None
    (height, width), (tall, wide) = sizes
    extra = own.shape[-2] - (height // tall) * (width // wide)
    side = math.isqrt(max(shape[-2] - extra, 0))
    if extra not in (0, 1, 2) or not side or side * side != shape[-2] - extra:
        return None
    config.image_size = side * tall if tall == wide else (side * tall, side * wide)
    source, _ = _load(model, config, state)
    embeddings = next((m for m in source.modules() if hasattr(m, 'interpolate_pos_encoding')), None)
    if embeddings is None:
        return None
    tokens = torch.zeros(1, own.shape[-2], own.shape[-1])
    with torch.no_grad():
        table = embeddings.interpolate_pos_encoding(tokens, height, width)
    return table.reshape(own.shape) if table.numel() == own.numel() else None


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    return tuple(size) if isinstance(size, (list, tuple)) and len(size) == 2 else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what transformers reports about names; the weights are checked, and told, by this project."""
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
