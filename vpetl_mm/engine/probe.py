"""A linear probe: the head trained alone, on the frozen backbone's features, before sensitivity is measured."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..models.features import Features, pooled

BATCHES = 160  # of the training data at most, whose features are computed
EPOCHS, BATCH, LR = 20, 32, 1e-3


@torch.no_grad()
def features_of(model: nn.Module, loader: Iterable[Any], batches: int = BATCHES) -> tuple[Tensor, list[Any]]:
    """Return the features of the frozen backbone, (N, d) or (N, d, T, 1, 1), and their N data samples.

    Args:
        model: a PETL model; left in evaluation mode.
        loader: of training batches.
        batches: at most how many to take. Defaults to 160.
    """
    model.eval()
    features, samples = [], []
    for batch in islice(loader, batches):
        data = model.data_preprocessor(batch, True)
        found = model.extract_feat(data['inputs'])
        features.append(pooled(found[0] if isinstance(found[-1], dict) else found).float())
        samples += data['data_samples']
    return torch.cat(features), samples


def train_head(model: nn.Module, features: Tensor, samples: list[Any], seed: int = 0) -> float:
    """Train the head on features: 20 epochs of AdamW at 1e-3, 32 samples a step, cosine to 0.

    Args:
        model: a PETL model, whose head is changed.
        features, samples: of :func:`features_of`.
        seed: of the order. Defaults to 0.

    Returns:
        The mean loss of the last epoch.
    """
    head = getattr(model, model.head_name).train()
    parameters = [*head.parameters()]
    trained = [p.requires_grad for p in parameters]
    head.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    size = min(BATCH, len(samples))
    steps = len(samples) // size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    generator, losses = torch.Generator().manual_seed(seed), []
    for _ in range(EPOCHS):
        losses = []
        for rows in torch.randperm(len(samples), generator=generator)[: steps * size].split(size):
            loss = _loss(model, features[rows.to(features.device)], [samples[i] for i in rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    for parameter, was in zip(parameters, trained, strict=True):
        parameter.requires_grad_(was)
        parameter.grad = None
    return sum(losses) / len(losses)


@torch.no_grad()
def settle(model: nn.Module, features: Tensor, samples: list[Any]) -> None:
    """Give the head's BatchNorms the mean and variance of ``features``: a sample no longer depends on others."""
    head = getattr(model, model.head_name)
    norms = [m for m in head.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
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
