"""A linear probe: the head trained alone, on the frozen backbone's features, before sensitivity is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ..errors import UserError
from ..models.features import Features, extracted

SAMPLES = 5000  # of the training data at most, whose features are computed
EPOCHS, BATCH, LR = 20, 32, 1e-3


@torch.no_grad()
def features_of(
    model: nn.Module, loader: Iterable[Any], advance: Callable[[], None] = lambda: None
) -> tuple[Tensor, list[Any]]:
    """Return the features of the frozen backbone, (N, d) or (N, d, T, 1, 1), and their N data samples.

    Args:
        model: a PETL model; left in evaluation mode.
        loader: of training batches; none is taken after the first 5,000 samples.
        advance: called after each.

    Raises:
        UserError: for fewer than two samples, on which no head can be trained.
    """
    model.eval()
    features, samples = [], []
    for batch in loader:
        data = model.data_preprocessor(batch, True)
        features.append(extracted(model, data['inputs']))
        samples += data['data_samples']
        advance()
        if len(samples) >= SAMPLES:
            break
    if len(samples) < 2:
        raise UserError(f'A head takes two training samples or more, and there are {len(samples)}.')
    return torch.cat(features), samples


def train_head(model: nn.Module, features: Tensor, samples: list[Any], seed: int = 0) -> None:
    """Train the head on features: 20 epochs of AdamW at 1e-3, 32 samples a step, cosine to 0.

    Args:
        model: a PETL model, whose head is changed, and left trainable.
        features, samples: of :func:`features_of`.
        seed: of the order. Defaults to 0.
    """
    head = getattr(model, model.head_name).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=LR, weight_decay=0.0)
    size = min(BATCH, len(samples))
    steps = len(samples) // size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(samples), generator=generator)[: steps * size].split(size):
            loss = _loss(model, features[rows.to(features.device)], [samples[i] for i in rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether the head of a PETL model has a BatchNorm."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in getattr(model, model.head_name).modules())


def settle(model: nn.Module, features: Tensor) -> None:
    """Give the head's BatchNorm the mean and variance of ``features``, (N, ...), so that samples stand alone."""
    found = model.extract_feat(Features(features))
    inputs = found[0] if isinstance(found[-1], dict) else found  # mmaction2 adds a dict
    update_bn([(inputs,)], getattr(model, model.head_name))


def _loss(model: nn.Module, features: Tensor, samples: list[Any]) -> Tensor:
    return model.parse_losses(model(Features(features), samples, mode='loss'))[0]
