"""A linear probe: the head trained alone, on the frozen backbone's features, before sensitivity is measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models.features import Features, extracted

SAMPLES = 5000  # of the training data at most, whose features are computed
EPOCHS, BATCH, LR = 20, 32, 1e-3


@torch.no_grad()
def features_of(model: nn.Module, loader: Iterable[Any], most: int = SAMPLES) -> tuple[Tensor, list[Any]]:
    """Return the features of the frozen backbone, (N, d) or (N, d, T, 1, 1), and their N data samples.

    Args:
        model: a PETL model; left in evaluation mode.
        loader: of training batches.
        most: the number of samples after which no further batch is taken. Defaults to 5,000.

    Raises:
        UserError: for fewer than two samples, on which no head can be trained.
    """
    model.eval()
    features, samples = [], []
    for batch in loader:
        data = model.data_preprocessor(batch, True)
        features.append(extracted(model, data['inputs']))
        samples += data['data_samples']
        if len(samples) >= most:
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


def norms_of(model: nn.Module) -> list[nn.Module]:
    """Return the BatchNorms of the head."""
    return [m for m in getattr(model, model.head_name).modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def settle(model: nn.Module, features: Tensor, samples: list[Any]) -> None:
    """Give the head's BatchNorms the mean and variance of ``features``: a sample no longer depends on others."""
    norms, head = norms_of(model), getattr(model, model.head_name)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    head.train()
    if norms:
        _loss(model, features, samples)
    head.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _loss(model: nn.Module, features: Tensor, samples: list[Any]) -> Tensor:
    return model.parse_losses(model(Features(features), samples, mode='loss'))[0]
