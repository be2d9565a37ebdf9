"""The type of numbers that a model computes with."""

from __future__ import annotations

import torch

from ...engine.optim import has_bfloat16
from ...errors import unknown

DTYPES = ('auto', 'float32', 'bfloat16')


def precision_on(device: str | torch.device, dtype: str = 'auto') -> tuple[bool, str]:
    """Choose between float32 and bfloat16 autocast.

    Args:
        device: that the model is on.
        dtype: ``'float32'``, ``'bfloat16'``, or ``'auto'`` (default): bfloat16 on a GPU or a CPU that has it in
            hardware, as a CPU without it takes up to 20 times as long.

    Returns:
        True for bfloat16, and the words that report it.

    Raises:
        UserError: for another ``dtype``.
    """
    if dtype not in DTYPES:
        raise unknown('dtype', dtype, DTYPES)
    kind = torch.device(device).type
    if kind == 'cuda':
        hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        hardware = kind == 'cpu' and has_bfloat16()
    if dtype == 'auto':
        return hardware, 'bfloat16' if hardware else f'float32 (this {_named(kind)} has no bfloat16)'
    slow = dtype == 'bfloat16' and not hardware
    return dtype == 'bfloat16', f'bfloat16, which this {_named(kind)} only emulates' if slow else dtype


def _named(kind: str) -> str:
    return dict(cpu='CPU', cuda='GPU').get(kind, kind)
