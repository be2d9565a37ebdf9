"""Adapter files: what was trained and the head, loaded only onto the base that they were trained on."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError
from ..models.petl_model import REFUSAL
from ..petl.delta import defaults_of
from ..petl.deltas import of_delta
from ..weights.base import about_base
from .checkpoint import read_checkpoint

FORMAT = 1
# a file may hold weights in fewer bits than the model, which are widened without loss, but not in more
FLOATS = {torch.float32, torch.float16, torch.bfloat16}


def frozen_digests(model: nn.Module) -> dict[str, str]:
    """Return the SHA-256 of every frozen parameter of the backbone, by name."""
    frozen = ((n, p) for n, p in model.backbone.named_parameters() if not p.requires_grad)
    return {n: hashlib.sha256(p.detach().cpu().contiguous().numpy().tobytes()).hexdigest() for n, p in frozen}


def frozen_sha256(model: nn.Module) -> str:
    """Return one SHA-256 over all frozen parameters of the backbone, names included."""
    lines = (f'{n} {digest}\n' for n, digest in sorted(frozen_digests(model).items()))
    return hashlib.sha256(''.join(lines).encode()).hexdigest()


def adapter_keys(model: nn.Module) -> list[str]:
    """Return the keys of an adapter file: what is trained, the deltas' buffers, and the head even if it is frozen."""
    kept = {n for n, p in model.named_parameters() if p.requires_grad} | {*_delta_buffers(model)}
    return [k for k in model.state_dict() if k in kept or k.startswith(f'{model.head_name}.')]


def _delta_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the deltas' buffers, such as the indices of single weights, by their keys in the model."""
    saved = model.state_dict().keys()
    return {n: b for n, b in model.named_buffers() if of_delta(n) and n in saved}


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of an adapter file: those of :func:`adapter_keys`, and buffers changed since the start.

    OpenMMLab's loaders load whatever a file has and go on, here with a random backbone. If the file lacks the
    backbone, they find a sentence instead of the first module's version, and stop.
    """
    state, at_start = model.state_dict(), getattr(model, 'initial_buffers', {})
    changed = [n for n, b in model.named_buffers() if n in at_start and not torch.equal(b.cpu(), at_start[n])]
    kept = OrderedDict((k, state[k].detach().cpu()) for k in [*adapter_keys(model), *changed])
    if not model.has_backbone(kept):
        kept._metadata = {'': REFUSAL}
    return kept


def trained_meta(model: nn.Module) -> dict[str, Any]:
    """Return what a checkpoint records of its base and its deltas."""
    base = model.base
    about = None if base is None else about_base(base, model.backbone)
    return dict(base=about, frozen_sha256=frozen_sha256(model), deltas=model.plan.settings())


def load_trained(
    model: nn.Module,
    file: str | Path,
    content: dict[str, Any] | None = None,
    check_base: Callable[[nn.Module], None] | None = None,
) -> dict[str, Any]:
    """Load an adapter file, or a run's full state, into a model, and return its content.

    Args:
        model: initialised: base in place, deltas and head present.
        file: ``adapter_*.pth``, ``best_*.pth`` or ``epoch_*.pth``.
        content: of the file, if it has been read.
        check_base: raises UserError for another base. Defaults to None: ``meta.frozen_sha256`` tells.

    Raises:
        UserError: when the file is missing or unreadable, belongs to another config, or was trained on
            another base; the model is then unchanged.
    """
    content = content or read_checkpoint(file)
    check_trained(model, file, content)
    (check_base or partial(_check_base, file, content['meta']))(model)
    for key, value in _delta_buffers(model).items():
        chosen = not value.is_floating_point()  # indices; random weights are loaded as they are
        if chosen and not torch.equal(content['state_dict'][key], value.cpu()):
            raise UserError(f'{file} is corrupt: its {key} are not those of the choice that it was trained with.')
    model.load_state_dict(dict(content['state_dict']), strict=False)
    return content


def _check_base(file: str | Path, meta: dict[str, Any], model: nn.Module) -> None:
    if meta['frozen_sha256'] != frozen_sha256(model):
        theirs, ours = ('random, base=None' if b is None else b['file'] for b in (meta['base'], model.base))
        raise UserError(
            f'{file} was trained on the base {theirs}, and the backbone that the config loads ({ours}) has other '
            f'weights; point model.base at the base it was trained on.'
        )


def check_trained(model: nn.Module, file: str | Path, content: dict[str, Any]) -> None:
    """Check that a checkpoint's content fits ``model``, which may be on the meta device.

    Raises:
        UserError: when it belongs to another config, or has tensors of another kind.
    """
    theirs, ours = content['meta']['deltas'], model.plan.settings()
    wanted = adapter_keys(model) if 'adapter_format' in content['meta'] else list(model.state_dict())
    # first what SPT tunes, as all keys and shapes follow from it
    if 'spt' in theirs and 'spt' in ours and theirs['spt'].get('choice') != ours['spt'].get('choice'):
        raise UserError(
            f'{file} is for another config: petl.spt.file chooses other parameters than it was trained with; '
            'point petl.spt.file at the file of its run.'
        )
    _check_keys(model, file, content['state_dict'], wanted)
    _check_settings(file, theirs, ours)


def _check_settings(file: str | Path, theirs: dict[str, dict], ours: dict[str, dict]) -> None:
    for name, settings in ours.items():
        # an option that did not exist when the file was written has its default
        defaults = {} if name == 'spt' else defaults_of(MODELS.get(settings['type']))
        for option in sorted({*settings, *theirs.get(name, {})}):
            there, here = theirs.get(name, {}).get(option, defaults.get(option)), settings.get(option)
            if there != here:
                raise UserError(
                    f'{file} is for another config: petl.deltas.{name}.{option} is {there!r:.80} there and {here!r} '
                    'here.'
                )


def _check_keys(model: nn.Module, file: str | Path, state: dict[str, Tensor], wanted: list[str]) -> None:
    ours = model.state_dict()
    for key in wanted:
        if key not in state:
            raise UserError(f'{file} is for another config: it lacks {key}, which this config trains or loads.')
    for key, value in state.items():
        if key not in ours:
            raise UserError(f'{file} is for another config: it holds {key}, which this model does not have.')
        if value.shape != ours[key].shape:
            there, here = tuple(value.shape), tuple(ours[key].shape)
            raise UserError(f'{file} is for another config: {key} is {there} there and {here} here.')
        same = value.dtype == ours[key].dtype or {value.dtype, ours[key].dtype} <= FLOATS
        if not same or value.layout != torch.strided:
            raise UserError(f'{file} is broken: {key} is {_kind(value)}, and the model takes {_kind(ours[key])}.')
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f'{file} cannot be used: {key} holds numbers that are not finite.')


def _kind(tensor: Tensor) -> str:
    dense = '' if tensor.layout == torch.strided else f' ({tensor.layout})'
    return f'{tensor.dtype}{dense}'.replace('torch.', '')
