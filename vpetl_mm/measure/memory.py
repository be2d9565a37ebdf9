"""Estimate the memory of training on one GPU, without data, weights or a GPU.

What autograd keeps of one GPU's batch comes from :mod:`.cost`; parameters, gradients and the optimizer's state are
arithmetic. The allocator, cuDNN and a step's temporary tensors come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmengine import Config

from ..config import load_config
from ..models.build import build_model
from .cost import classes_of, cost_of, input_shape, is_mixed
from .count import trains_by_budget
from .fake_step import fake_step

BYTES = 4  # of a parameter, in float32


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


def estimate(config: str | Path | Config, batch: int | None = None) -> Memory:
    """Estimate the memory of one training step on one GPU; for SPT, whose file must exist, in seconds.

    Args:
        config: the experiment.
        batch: samples a step on one GPU. Defaults to the config's ``train_dataloader.batch_size``.

    Raises:
        UserError: when the config does not say how large its inputs are, and as :func:`.cost.cost_of`.
    """
    cfg = load_config(config)
    batch = batch or cfg.train_dataloader.batch_size
    if trains_by_budget(cfg.model):
        trained, held, saved = _of_budget(cfg, batch)
    else:
        cost, classes = cost_of(cfg), classes_of(cfg)
        trained, held, saved = cost.trained.at(classes), cost.held.at(classes), cost.saved.at(batch)
    optimizer = cfg.optim_wrapper.optimizer
    # tensors of a parameter's size that it keeps for each: SGD its momentum, Adam and AdamW two moments
    states = bool(optimizer.get('momentum')) if optimizer.type == 'SGD' else 2
    return Memory(trained, held, BYTES * trained, states * BYTES * trained, saved)


def _of_budget(cfg: Config, batch: int) -> tuple[int, int, int]:
    """Return the parameters that train, the bytes of all, and those that a step keeps."""
    model = build_model(cfg, meta=True)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    held = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    return trained, held, fake_step(model, (batch, *input_shape(cfg)), is_mixed(cfg)).saved


def memory_line(memory: Memory) -> str:
    """Format the estimate as one line, in GiB."""
    parts = ('parameters', 'gradients', 'optimizer', 'activations')
    detail = ', '.join(f'{p} {getattr(memory, p) / 2**30:.2f}' for p in parts)
    return f'estimate {memory.total / 2**30:.1f} GiB a GPU ({detail})'
