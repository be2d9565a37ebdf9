"""Single entries of weights with random values, and the dense weights that they make up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vpetl_mm.petl import Sparse

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def some(size: int, n: int) -> Tensor | None:
    """``n`` of ``size`` positions, None for none."""
    return torch.randperm(size, generator=GENERATOR)[:n].sort().values if n else None


def host_of(shape: tuple[int, ...], bias: bool = True, eps: float = 1e-3) -> nn.Module:
    """A linear layer, or a LayerNorm, in double precision."""
    host = nn.Linear(shape[1], shape[0], bias) if len(shape) == 2 else nn.LayerNorm(shape, eps)
    host = host.double().requires_grad_(False)
    for parameter in host.parameters():
        parameter.copy_(draw(*parameter.shape))
    return host


def sparse_of(shape: tuple[int, ...], n: int, m: int) -> tuple[Sparse, Tensor, Tensor]:
    """Of n entries of a weight and m of a bias, with the dense weight and bias."""
    size, width = torch.Size(shape).numel(), shape[0]
    sparse = Sparse(some(size, n), some(width, m)).double()
    weight, bias = torch.zeros(size, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    with torch.no_grad():
        for value, index, dense in (
            (sparse.weight_value, sparse.weight_index, weight),
            (sparse.bias_value, sparse.bias_index, bias),
        ):
            if value is not None:
                value.copy_(draw(len(value)))
                dense[index.long()] = value
    return sparse, weight.view(shape), bias
