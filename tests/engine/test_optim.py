"""Which precision a run takes on which CPU, and what it says of it."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from vpetl_mm.engine.optim import AutocastOptimWrapper

WITHOUT = dict(architecture='x86_64', avx2=True, avx512_f=True, avx512_bf16=False, amx_bf16=False)


@pytest.fixture
def said():
    """What the logger says meanwhile."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize(
    ('there', 'amp', 'dtype', 'words', 'level'),
    [
        (WITHOUT, False, torch.float32, 'float32, as this CPU only emulates bfloat16; --amp', logging.INFO),
        ({}, False, torch.float32, 'float32', logging.INFO),
        (WITHOUT, True, torch.bfloat16, 'bfloat16 autocast, as --amp asks; it is slow', logging.WARNING),
        (WITHOUT | dict(avx512_bf16=True), False, torch.bfloat16, 'bfloat16 autocast', logging.INFO),
        (WITHOUT | dict(amx_bf16=True), True, torch.bfloat16, 'bfloat16 autocast', logging.INFO),
        (dict(architecture='aarch64', bf16=True), False, torch.bfloat16, 'bfloat16 autocast', logging.INFO),
    ],
)
def test_a_cpu_has_bfloat16_or_float32_is_taken(there, amp, dtype, words, level, said, monkeypatch):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: there)
    monkeypatch.setattr('vpetl_mm.engine.optim.get_device', lambda: 'cpu')
    model = nn.Linear(3, 3)
    wrapper = AutocastOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1), any_cpu=amp)
    for _ in range(2):
        with wrapper.optim_context(model):
            assert model(torch.ones(2, 3)).dtype == dtype
    (record,) = [r for r in said if r.getMessage().startswith('Precision: ')]
    assert record.getMessage().startswith(f'Precision: {words}') and record.levelno == level
