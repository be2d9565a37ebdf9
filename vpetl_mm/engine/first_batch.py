"""One sample on its way from a data set to the model, tried before anything is written."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine import Config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..errors import UserError
from .parts import naming

# by the head: a sample's dimensions, where its colours are, and its shape in words
WANTED = dict(cls_head=(5, 1, '(clips, 3, T, H, W)'), head=(3, 0, '(3, H, W)'))


def check_batch(cfg: Config, key: str, loader: DataLoader, sample: Any, model: nn.Module) -> None:
    """Collate and normalise a sample, and compare its shape with what the model takes.

    Args:
        cfg: the experiment.
        key: of the data loader in it.
        loader: the data loader.
        sample: of its data set.
        model: on any device.

    Raises:
        UserError: when one of these steps cannot be done, or the shape is wrong.
    """
    inputs = sample.get('inputs') if isinstance(sample, Mapping) else None
    if isinstance(inputs, Tensor):
        _check_shape(f'{key}.dataset.pipeline', tuple(inputs.shape), model.head_name, key == 'train_dataloader')
    with naming(cfg, f'{key}.collate_fn'):
        batch = loader.collate_fn([sample])
    with naming(cfg, f'model.data_preprocessor, or {key}.collate_fn,'):
        # on the meta device it has no values; here its shapes matter alone
        copy.deepcopy(model.data_preprocessor).to_empty(device='cpu')(batch)


def _check_shape(pipeline: str, shape: tuple[int, ...], head: str, training: bool) -> None:
    dimensions, colours, wanted = WANTED[head]
    if len(shape) != dimensions or shape[colours] != 3:
        raise UserError(f'{pipeline} gives inputs of the shape {shape}, and the model takes {wanted}.')
    if training and colours == 1 and shape[0] != 1:
        raise UserError(f'{pipeline} gives {shape[0]} clips of each video, and training takes one: set num_clips=1.')
