"""Adapter files: what was trained and the head, and the proof that they meet the base they were trained on."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError, is_line
from ..files import file_sha256
from ..models.petl_model import REFUSAL
from ..petl import Delta
from ..petl.delta import defaults_of
from ..weights.contents import format_of, must_be_file
from ..weights.torch_file import read_torch, reason_of
from .checkpoint_meta import check_meta
from .plain import history_of

FORMAT = 1
# of one model's weights: a file may hold them in fewer bits, which are widened without loss, but not in more
FLOATS = {torch.float32, torch.float16, torch.bfloat16}
_sha256_once = cache(file_sha256)


def frozen_digests(model: nn.Module) -> dict[str, str]:
    """The SHA-256 of every frozen parameter of the backbone, by name."""
    frozen = ((n, p) for n, p in model.backbone.named_parameters() if not p.requires_grad)
    return {n: hashlib.sha256(p.detach().cpu().contiguous().numpy().tobytes()).hexdigest() for n, p in frozen}


def frozen_sha256(model: nn.Module) -> str:
    """One SHA-256 over all frozen parameters of the backbone, names included."""
    lines = (f'{n} {digest}\n' for n, digest in sorted(frozen_digests(model).items()))
    return hashlib.sha256(''.join(lines).encode()).hexdigest()


def adapter_keys(model: nn.Module) -> list[str]:
    """The keys of an adapter file: what is trained, the deltas' buffers, and the head also where it is frozen."""
    kept = {n for n, p in model.named_parameters() if p.requires_grad} | {*_delta_buffers(model)}
    return [k for k in model.state_dict() if k in kept or k.startswith(f'{model.head_name}.')]


def _delta_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The deltas' buffers, such as the indices of single weights, by their keys in the model."""
    deltas = {n: m for n, m in model.named_modules() if isinstance(m, Delta)}
    return {f'{n}.{b}': value for n, delta in deltas.items() for b, value in delta.named_buffers()}


def changed_buffers(model: nn.Module) -> list[str]:
    """The backbone's buffers that are no longer what they were when the model was initialised."""
    at_start = getattr(model, 'initial_buffers', {})
    return [n for n, b in model.named_buffers() if n in at_start and not torch.equal(b.cpu(), at_start[n])]


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of an adapter file.

    OpenMMLab's loaders load whatever a file has and go on, here with a random backbone. Where the file has not the
    whole backbone, they find a sentence in the place of the first module's version, and end.
    """
    state = model.state_dict()
    kept = OrderedDict((k, state[k].detach().cpu()) for k in [*adapter_keys(model), *changed_buffers(model)])
    if not model.has_backbone(kept):
        kept._metadata = {'': REFUSAL}
    return kept


def trained_meta(model: nn.Module) -> dict[str, Any]:
    """What a checkpoint says of the settings and the base that it belongs to."""
    base = model.base
    about = None if base is None else dict(file=str(base['file']), sha256=_sha256_once(base['file']))
    return dict(base=about, frozen_sha256=frozen_sha256(model), deltas=model.plan.settings())


def load_trained(model: nn.Module, file: str | Path) -> dict[str, Any]:
    """Load an adapter file, or a run's full state, into a model whose base is loaded.

    Args:
        model: initialised: base in place, deltas and head present.
        file: ``adapter_*.pth``, ``best_*.pth`` or ``epoch_*.pth``.

    Returns:
        The file's content.

    Raises:
        UserError: when the file is missing or unreadable, belongs to another config, or was trained on
            another base; the model is then unchanged.
    """
    content = check_trained(model, file)
    meta = content['meta']
    if meta['frozen_sha256'] != frozen_sha256(model):
        theirs, ours = _base_name(meta['base']), _base_name(model.base)
        raise UserError(
            f'{file} was trained on the base {theirs}, and the backbone that the config loads ({ours}) has other '
            f'weights; point model.base at the base it was trained on.'
        )
    for key, value in _delta_buffers(model).items():
        if not torch.equal(content['state_dict'][key], value.cpu()):
            raise UserError(f'{file} is corrupt: its {key} are not those of the choice that it was trained with.')
    model.load_state_dict(dict(content['state_dict']), strict=False)
    return content


def check_trained(model: nn.Module, file: str | Path) -> dict[str, Any]:
    """A checkpoint's content when it fits ``model``, which may be on the meta device.

    Raises:
        UserError: when the file is missing, unreadable or broken, or belongs to another config.
    """
    content = read_checkpoint(file)
    meta = content['meta']
    is_adapter = 'adapter_format' in meta
    _check_choice(file, meta['deltas'], model.plan.settings())
    _check_keys(model, file, content['state_dict'], adapter_keys(model) if is_adapter else list(model.state_dict()))
    _check_settings(file, meta['deltas'], model.plan.settings())
    return content


def _check_choice(file: str | Path, theirs: dict[str, dict], ours: dict[str, dict]) -> None:
    """What SPT tunes must be the same; first, as all keys and shapes follow from it."""
    if 'spt' in theirs and 'spt' in ours and theirs['spt'].get('choice') != ours['spt'].get('choice'):
        raise UserError(
            f'{file} is for another config: petl.spt.file chooses other parameters than those it was trained with; '
            'point petl.spt.file at the file of its run.'
        )


def _check_settings(file: str | Path, theirs: dict[str, dict], ours: dict[str, dict]) -> None:
    for name, settings in ours.items():
        # an option that its version had not yet is at its default
        defaults = {} if name == 'spt' else defaults_of(MODELS.get(settings['type']))
        for option in sorted({*settings, *theirs.get(name, {})}):
            there, here = theirs.get(name, {}).get(option, defaults.get(option)), settings.get(option)
            if there != here:
                raise UserError(
                    f'{file} is for another config: petl.deltas.{name}.{option} is {there!r:.80} there and {here!r} '
                    'here.'
                )


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """A checkpoint as written by this project: an adapter or a full state, read with ``weights_only=True``.

    Raises:
        UserError: when it is missing, broken, or none of this project, naming the part that is wrong.
    """
    path = Path(file)
    must_be_file(path, 'The checkpoint ')
    try:
        form = format_of(path)
    except UserError as error:
        raise UserError(f'{path} is no checkpoint: {error}') from error
    if form != 'torch':
        raise UserError(f'{path} is no checkpoint of this project: it is a file of {form}, not of torch.')
    try:
        content = read_torch(path)
    except Exception as error:
        raise UserError(f'The checkpoint {path} is broken or not safe to read ({reason_of(error)}).') from error
    if not isinstance(content, dict) or not isinstance(content.get('state_dict'), dict):
        raise UserError(f'{path} is no checkpoint of this project: it has no state_dict.')
    if not isinstance(content.get('meta'), dict) or 'frozen_sha256' not in content['meta']:
        raise UserError(f'{path} is no checkpoint of this project: it does not say which base it was trained on.')
    check_meta(path, content['meta'])
    for key, value in content['state_dict'].items():
        if not is_line(key) or not isinstance(value, Tensor):
            raise UserError(f'The checkpoint {path} is broken: {key!r:.80} in its state_dict is no named tensor.')
    scalars = content['message_hub'].get('log_scalars') if isinstance(content.get('message_hub'), dict) else None
    if isinstance(scalars, dict):
        content['message_hub']['log_scalars'] = {n: history_of(path, n, value) for n, value in scalars.items()}
    return content


def _base_name(base: dict[str, Any] | None) -> str:
    return 'random, base=None' if base is None else str(base['file'])


def _check_keys(model: nn.Module, file: str | Path, state: dict[str, Tensor], wanted: list[str]) -> None:
    ours = model.state_dict()
    for key in wanted:
        if key not in state:
            raise UserError(f'{file} is for another config: it lacks {key}, which this config trains or loads.')
    for key, value in state.items():
        if key not in ours:
            raise UserError(f'{file} is for another config: it holds {key}, which this model has not.')
        if value.shape != ours[key].shape:
            there, here = tuple(value.shape), tuple(ours[key].shape)
            raise UserError(f'{file} is for another config: {key} is {there} there and {here} here.')
        same = value.dtype == ours[key].dtype or {value.dtype, ours[key].dtype} <= FLOATS
        if not same or value.layout != torch.strided:
            raise UserError(f'{file} is broken: {key} is {_kind(value)}, and the model takes {_kind(ours[key])}.')
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f'{file} is of no use: {key} holds numbers that are not finite.')


def _kind(tensor: Tensor) -> str:
    dense = '' if tensor.layout == torch.strided else f' ({tensor.layout})'
    return f'{tensor.dtype}{dense}'.replace('torch.', '')
