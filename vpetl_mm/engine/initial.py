"""Trained weights that a new run starts from: deltas as they are, the head's rows by the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor, nn

from ..errors import UserError, tellable
from ..models.build import build_model
from .adapter import adapter_state, load_trained
from .building import naming
from .checkpoint import Checkpoint

SHOWN = 5  # names of classes in a sentence


def initial_state(cfg: Config, initial: Checkpoint) -> tuple[dict[str, Tensor], str]:
    """Return the tensors that a run of ``cfg`` starts from, and what was taken, in a sentence.

    Args:
        cfg: the experiment, prepared and checked.
        initial: what another run trained, of the same deltas on the same base.

    Raises:
        UserError: when its deltas, its base, or what SPT chose are others, or it trained other weights.
    """
    model = build_model(cfg, init_weights=True)
    theirs = initial.content['meta'].get('dataset_meta', {}).get('classes')
    rows, told = _rows(initial.content['state_dict'], model, theirs, _class_names(cfg))
    state = _fitted(initial.content['state_dict'], model, rows)
    _check_same_trained(initial, state, model)
    content = dict(initial.content, state_dict=state)
    load_trained(model, initial.file, content, initial.check_base)
    return adapter_state(model), f'starts from {initial.file}: {told}'


def _class_names(cfg: Config) -> Sequence[str] | None:
    """Return the class names of the training data; None where it has none."""
    with (
        naming(cfg, 'train_dataloader.dataset'),
        DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')),
    ):
        names = DATASETS.build(cfg.copy().train_dataloader.dataset).metainfo.get('classes')
    return names if isinstance(names, (list, tuple)) else None


def _linear(model: nn.Module) -> str:
    """Return the name of the head's linear layer, which has a row for each class."""
    head = getattr(model, model.head_name)
    return next(
        f'{model.head_name}.{name}'
        for name, m in head.named_modules()
        if isinstance(m, nn.Linear) and m.out_features == head.num_classes
    )


def _rows(
    state: Mapping[str, Tensor], model: nn.Module, theirs: Any, ours: Sequence[str] | None
) -> tuple[dict[int, int], str]:
    """Return row of the model's head -> row of the file's that it is taken from, and the sentence about it."""
    number = getattr(model, model.head_name).num_classes
    weight = state.get(f'{_linear(model)}.weight')
    there = len(weight) if weight is not None and weight.ndim else 0
    named = isinstance(theirs, (list, tuple)) and len(theirs) == there and ours is not None and len(ours) == number
    if not named:
        why = 'class names are not known on both sides'
        if there == number:
            return dict(zip(range(number), range(number), strict=True)), f'the head as it is, as {why}'
        return {}, f'but for the head, which has {there} classes there and {number} here, and {why}'
    at = {name: row for row, name in reversed([*enumerate(theirs)])}
    rows = {row: at[name] for row, name in enumerate(ours) if name in at}
    new = [name for name in ours if name not in at]
    if not new and there == number:
        return rows, f'all {number} classes of its head are the same'
    taken = [name for name in ours if name in at]
    return rows, f"of the head's {number} classes it takes {_listed(taken)}; new are {_listed(new)}"


def _listed(names: Sequence[str]) -> str:
    shown = ', '.join([*(tellable(name)[:80] for name in names[:SHOWN]), *(['...'] if len(names) > SHOWN else [])])
    return f'{len(names)} ({shown})' if names else 'none'


def _fitted(state: Mapping[str, Tensor], model: nn.Module, rows: Mapping[int, int]) -> dict[str, Tensor]:
    """Return the file's tensors with a head of the model's classes; rows without a source keep the model's draw."""
    own, linear, fitted = model.state_dict(), _linear(model), dict(state)
    for part in ('weight', 'bias'):
        name = f'{linear}.{part}'
        if name in state and name in own and state[name].shape[1:] == own[name].shape[1:]:
            fitted[name] = own[name].clone()
            for row, source in rows.items():
                fitted[name][row] = state[name][source]
    return fitted


def _check_same_trained(initial: Checkpoint, state: Mapping[str, Tensor], model: nn.Module) -> None:
    """Refuse weights that were trained there and stay frozen here, unless they are the same."""
    for name, parameter in model.named_parameters():
        frozen = name in state and not parameter.requires_grad and not name.startswith(f'{model.head_name}.')
        if frozen and not (parameter.shape == state[name].shape and torch.equal(parameter, state[name])):
            raise UserError(f'{initial.file} is for another config: it trained {name}, which stays frozen here.')
