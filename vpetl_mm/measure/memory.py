"""Estimate the memory of training on one GPU, without data, weights or a GPU.

The model's forward pass runs on fake tensors (shapes and types, no values) with one GPU's batch, and what autograd
keeps is added up. Attention counts as a fused kernel, which keeps q, k, v, the mask, its output and one number per
row. The allocator, cuDNN and a step's temporary tensors come on top.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmaction.models.backbones.swin import compute_mask
from mmengine import Config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from ..config import load_config
from ..errors import UserError
from ..models.build import build_model
from .count import shape_of
from .live_bytes import alive_after_forward

_estimated: dict[tuple, Memory] = {}  # by the model's shape, its optimizer and its inputs


@dataclass(frozen=True)
class Memory:
    """An estimate in bytes.

    Args:
        trained: how many parameters train, a count.
        parameters: all of the model's, and its buffers.
        gradients: of what trains.
        optimizer: the optimizer's state.
        activations: what the forward pass of one GPU's batch keeps for the backward pass.
    """

    trained: int
    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Return the sum in bytes."""
        return self.parameters + self.gradients + self.optimizer + self.activations


class _FusedAttention(torch.autograd.Function):
    """A stand-in that saves the tensors a fused attention kernel saves; its output has no meaning."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        y = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
        row_sums = torch.empty(q.shape[:-1], device=q.device)
        ctx.save_for_backward(q, k, v, mask, y, row_sums)
        return y


class _AttentionIsFused(TorchFunctionMode):
    """A mode that replaces attention by the fused kernel that a GPU would run."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        q, k, v = args[:3]
        mask = kwargs.get('attn_mask')
        if torch.is_autocast_enabled('cpu'):
            dtype = torch.get_autocast_dtype('cpu')
            q, k, v, mask = (None if t is None else t.to(dtype) for t in (q, k, v, mask))
        return _FusedAttention.apply(q, k, v, mask)


def estimate(config: str | Path | Config, batch: int | None = None) -> Memory:
    """Estimate the memory of one training step on one GPU.

    Args:
        config: the experiment.
        batch: samples a step on one GPU. Defaults to the config's ``train_dataloader.batch_size``.

    Raises:
        UserError: when the config does not say how large its inputs are.
    """
    cfg = load_config(config)
    shape = (batch or cfg.train_dataloader.batch_size, *input_shape(cfg))
    key = (shape_of(cfg.model), str(cfg.optim_wrapper), shape)
    if key not in _estimated:
        _estimated[key] = _estimate(cfg, shape)
    return _estimated[key]


def _estimate(cfg: Config, shape: tuple[int, ...]) -> Memory:
    model = build_model(cfg, meta=True).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.nbytes for p in trained)
    held = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    optimizer = cfg.optim_wrapper.optimizer
    # tensors of a parameter's size that it keeps for each: SGD its momentum, Adam and AdamW two moments
    states = bool(optimizer.get('momentum')) if optimizer.type == 'SGD' else 2
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    activations = saved_bytes(model, shape, mixed='Autocast' in wrapper or 'Amp' in wrapper)
    return Memory(sum(p.numel() for p in trained), held, gradients, states * gradients, activations)


def saved_bytes(model: nn.Module, shape: tuple[int, ...], mixed: bool) -> int:
    """Count the bytes that one forward pass keeps for the backward pass, parameters and buffers left out.

    Args:
        model: on the meta device, in training mode; it is moved to fake tensors.
        shape: of the input, (batch, 3, T, H, W) or (batch, 3, H, W).
        mixed: run under bfloat16 autocast.
    """
    for module in model.modules():
        if hasattr(module, 'drop_prob'):
            module.drop_prob = 0.0  # drop-path may keep everything
        if hasattr(module, 'dot_product'):
            module.dot_product = F.scaled_dot_product_attention  # as on a GPU, even where fast uses another on a CPU
    try:
        with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True), _AttentionIsFused():
            warnings.simplefilter('ignore')  # fake tensors have no address, which the cache of masks asks for
            return alive_after_forward(model.to_empty(device='cpu'), torch.empty(shape), mixed)
    finally:
        compute_mask.cache_clear()  # mmaction2 keeps the masks of all models: none of fake tensors may stay


def input_shape(cfg: Config) -> tuple[int, ...]:
    """Return the shape of one training sample, (3, T, H, W) or (3, H, W), from the training pipeline.

    Raises:
        UserError: when no step of the pipeline states it.
    """
    steps = cfg.train_dataloader.dataset.pipeline
    frames = [s['clip_len'] for s in steps if 'clip_len' in s]
    sizes = [s[key] for s in steps for key in ('input_size', 'crop_size', 'scale', 'size') if key in s]
    sides = [s for s in sizes if isinstance(s, int) or (isinstance(s, (list, tuple)) and len(s) == 2)]
    if not sides:
        raise UserError(f'{cfg.filename or "The config"}: no step of the training pipeline states its output size.')
    side = sides[-1]
    height, width = (side, side) if isinstance(side, int) else (side[1], side[0])
    return (3, *frames[:1], height, width)


def memory_line(memory: Memory) -> str:
    """Format the estimate as one line, in GiB."""
    parts = ('parameters', 'gradients', 'optimizer', 'activations')
    detail = ', '.join(f'{p} {getattr(memory, p) / 2**30:.2f}' for p in parts)
    return f'estimate {memory.total / 2**30:.1f} GiB a GPU ({detail})'
