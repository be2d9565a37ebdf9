"""Optimizers over what is trained, bfloat16 on hardware that has it, and epochs of whole steps."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn
from torch.utils.data import BatchSampler, Sampler

from ..errors import UserError, unknown
from ..spt.tuning import ENTRIES, TOKEN, WHOLES

# what is trained; the backbone's own are entries (single weights) and vectors where SPT tunes them
GROUPS = ('head', 'deltas', 'backbone', 'entries', 'vectors')
OF_BACKBONE = ('backbone', 'entries', 'vectors')
FACTORS = ('lr_mult', 'decay_mult')


class PETLOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, over the parameters that require gradients.

    With SPT, vectors (1-D parameters, single weights included) have no weight decay unless
    ``paramwise_cfg.flat_decay_mult`` says otherwise.

    ``paramwise_cfg.groups``, such as ``dict(head=dict(lr_mult=10.0))``, multiplies the learning rate (``lr_mult``)
    and the weight decay (``decay_mult``) of the ``head``, the ``deltas`` or the ``backbone``'s own tuned weights, on
    top of what mmengine's rules give them. With SPT, ``entries`` (single weights) and ``vectors`` are parts of the
    ``backbone``, whose factors they override.

    Raises:
        UserError: when nothing is trained, and for an unknown group, or one in which nothing is trained.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper for ``model``, which may be wrapped for several GPUs."""
        trained, plain = trained_part(model), model.module if is_model_wrapper(model) else model
        self._members = {id(p): group_of(plain, n) for n, p in plain.named_parameters() if p.requires_grad}
        self._check_groups()
        if not [*trained.parameters()]:
            raise UserError('Nothing is trained: petl has no deltas and an empty train list.')
        if getattr(plain, 'spt', None) is not None:  # as in SPT's own recipe
            self.paramwise_cfg = dict(flat_decay_mult=0.0) | (self.paramwise_cfg or {})
        return super().__call__(trained)

    def _check_groups(self) -> None:
        groups, trained = self.paramwise_cfg.get('groups'), self._trained_groups()
        check_groups(groups)
        for name in groups or ():
            if name not in trained:
                there = ', '.join(g for g in GROUPS if g in trained)
                raise UserError(f'paramwise_cfg.groups.{name}: nothing of it is trained; trained are {there}.')

    def _trained_groups(self) -> set[str]:
        found = {*self._members.values()}
        return found | {'backbone'} if found & {*OF_BACKBONE} else found

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any) -> None:
        """Add the parameters of ``module`` to ``params`` as mmengine does, then multiply by group."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        groups = self.paramwise_cfg.get('groups') or {}
        if prefix or not groups:  # mmengine calls this again for every module inside
            return
        for entry in params:
            own = self._members[id(entry['params'][0])]
            factors = {**(groups.get('backbone', {}) if own in OF_BACKBONE else {}), **groups.get(own, {})}
            for key, factor, base in (('lr', 'lr_mult', self.base_lr), ('weight_decay', 'decay_mult', self.base_wd)):
                if factor in factors and entry.get(key, base) is not None:
                    entry[key] = entry.get(key, base) * factors[factor]


def check_groups(groups: Any) -> None:
    """Raise :class:`UserError` for what ``paramwise_cfg.groups`` cannot be, whatever is trained."""
    if not isinstance(groups or {}, Mapping):
        raise UserError(f'paramwise_cfg.groups must be a dict such as dict(head=dict(lr_mult=10.0)), got {groups!r}.')
    for name, factors in (groups or {}).items():
        if name not in GROUPS:
            raise unknown('group of paramwise_cfg.groups', name, GROUPS)
        if not isinstance(factors, Mapping):
            raise UserError(
                f'paramwise_cfg.groups.{name} must be a dict such as dict(lr_mult=10.0), got {factors!r}.'
            )
        for key, value in factors.items():
            if key not in FACTORS:
                raise unknown(f'key of paramwise_cfg.groups.{name}', key, FACTORS)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < sys.float_info.max:
                raise UserError(f'paramwise_cfg.groups.{name}.{key} must be a number of at least 0, got {value!r}.')


def group_of(model: nn.Module, name: str) -> str:
    """Return which of :data:`GROUPS` a trained parameter of ``model`` belongs to.

    Single weights and vectors that SPT tunes are its ``entries`` and ``vectors``, its structured updates are deltas.
    """
    parts = name.split('.')
    if parts[0] == model.head_name:
        return 'head'
    if getattr(model, 'spt', None) is not None:
        chosen = {ENTRIES: 'entries', WHOLES: 'vectors', TOKEN: 'vectors'}.get(model.plan.owners.get(name))
        if chosen:
            return chosen
    return 'deltas' if 'deltas' in parts else 'backbone'


def trained_part(model: nn.Module) -> nn.Module:
    """Return a module of the trained parameters of ``model`` alone, shared, under the same keys."""
    root = nn.Module()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            *path, last = name.split('.')
            module = root
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_parameter(last, parameter)
    return root


class AutocastOptimWrapper(OptimWrapper):
    """Mixed precision in bfloat16, which needs no loss scaling; float32 on a CPU without bfloat16 instructions.

    On such a CPU, a step in bfloat16 takes up to 20 times as long as in float32.

    Args:
        any_cpu: use bfloat16 there too (``--amp``). Defaults to False.
    """

    def __init__(self, *args: Any, any_cpu: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slow = get_device() == 'cpu' and not has_bfloat16()
        self.enabled = any_cpu or not self.slow
        self._said = False

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass of ``model`` under autocast."""
        if not self._said:
            self._said = True
            self._say()
        with super().optim_context(model), torch.autocast(get_device(), torch.bfloat16, self.enabled):
            yield

    def _say(self) -> None:
        logger = MMLogger.get_current_instance()
        if not self.slow:
            logger.info('Precision: bfloat16 autocast')
        elif self.enabled:
            logger.warning('Precision: bfloat16 autocast, as --amp asks; it is slow, as this CPU only emulates it')
        else:
            logger.info('Precision: float32, as this CPU only emulates bfloat16; --amp uses it anyway')


def has_bfloat16() -> bool:
    """Return whether this CPU has bfloat16 instructions: AVX512-BF16 or AMX on x86, BF16 on ARM."""
    there = getattr(torch.cpu, 'get_capabilities', dict)()  # not yet in torch 2.6
    return any(there.get(name) for name in ('avx512_bf16', 'amx_bf16', 'bf16', 'sve_bf16'))


class WholeStepsBatchSampler(BatchSampler):
    """Full batches, as many as make whole optimizer steps when gradients are accumulated; the rest is left out.

    mmengine would carry the gradients of an unfinished step into the next epoch, and lose them in a resumed run. The
    same samples are left out as on as many GPUs as steps are accumulated.

    Args:
        sampler: of indices.
        batch_size: samples in a batch.
        steps: batches whose gradients make one optimizer step.
    """

    def __init__(self, sampler: Sampler, batch_size: int, steps: int) -> None:
        super().__init__(sampler, batch_size, drop_last=True)
        self.steps = steps

    def __len__(self) -> int:
        """Return the batches in an epoch, a multiple of ``steps``."""
        return super().__len__() // self.steps * self.steps

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of ``batch_size`` indices."""
        return islice(super().__iter__(), len(self))
