"""Sparse: single entries of a frozen weight, trained as (index, value) pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .delta import Delta


class Sparse(Delta):
    """Unstructured tuning (SPT, Sec. 1): the host's weight becomes W + S, with S zero except at the given entries.

    The weight is a linear layer's or a LayerNorm's; entries of its bias are tuned likewise. Values start at zero, so
    that step 0 is the plain backbone. Parameters: one for each index.

    Args:
        weight_index: flat positions in the weight, (n,), integers. Defaults to None, no entry.
        bias_index: positions in the bias of the host's output, (m,). Defaults to None, no entry.
    """

    places = ('qkv', 'proj', 'fc1', 'fc2')
    reads = 'weights'

    def __init__(self, weight_index: Tensor | None = None, bias_index: Tensor | None = None) -> None:
        super().__init__()
        for name, given in (('weight', weight_index), ('bias', bias_index)):
            # on the device of everything else that is built, which may be meta
            index = None if given is None else given.to(torch.get_default_device(), torch.int32)
            self.register_buffer(f'{name}_index', index)
            self.register_parameter(f'{name}_value', None if index is None else nn.Parameter(torch.zeros(len(index))))

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Refuse a place in ``petl.deltas``: the file of ``petl.spt`` lists the trained entries."""
        raise UserError('Sparse has no place in petl.deltas: petl.spt=dict(file=...) says which entries it trains.')

    def reset_parameters(self) -> None:
        """Set every value to zero."""
        for value in self.parameters():
            nn.init.zeros_(value)

    def update(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W + S and the tuned bias; a host without a bias gets one of zeros."""
        if self.bias_value is not None:
            bias = _added(weight.new_zeros(len(weight)) if bias is None else bias, self.bias_index, self.bias_value)
        if self.weight_value is not None:
            weight = _added(weight, self.weight_index, self.weight_value)
        return weight, bias


def _added(tensor: Tensor, index: Tensor, value: Tensor) -> Tensor:
    return tensor.flatten().index_add(0, index, value.to(tensor.dtype)).view_as(tensor)
