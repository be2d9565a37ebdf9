"""Full states of a run, ``epoch_N.pth``: read, checked, and compared with what is to continue from them."""

from __future__ import annotations

import copy
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..bounds import check_zip
from ..errors import UserError, is_line, reason
from ..files import is_plain
from ..weights.contents import must_be_file
from ..weights.torch_file import allowed
from .checkpoint import check_types, read_checkpoint

# what zipfile raises on a damaged file; RuntimeError if the damage looks like encryption or an unknown compression
UNREADABLE = (OSError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, zlib.error)
NAME = re.compile(r'epoch_(\d+)\.pth')
# what a resumed run needs, by the part of the file; param_schedulers are missing if the config has none
NEEDED = {
    '': {'meta': dict, 'state_dict': dict, 'optimizer': dict, 'message_hub': dict},
    'meta': {'epoch': int, 'iter': int},
    'optimizer': {'state': dict, 'param_groups': list},
    'message_hub': {'log_scalars': dict, 'runtime_info': dict, 'resumed_keys': dict},
}


def read_full_state(file: str | Path) -> dict[str, Any]:
    """Check every byte of a full state, and read it with ``weights_only=True``.

    Raises:
        UserError: when it is missing, damaged, an adapter, or lacks a part that a resumed run needs.
    """
    path = Path(file)
    _check_bytes(path)
    content = read_checkpoint(path)
    if 'adapter_format' in content['meta'] and 'optimizer' not in content:
        raise UserError(f'{path} cannot be resumed from: it is an adapter; resume from an epoch_*.pth.')
    for part, types in NEEDED.items():
        check_types(path, content[part] if part else content, types, f'{part}.' if part else '')
    if not content['state_dict']:
        raise UserError(f'The checkpoint {path} is broken: its state_dict is empty.')
    for name, right in _details(content):
        if not right:
            raise UserError(f'The checkpoint {path} is broken: {name} is not what a run of this project writes.')
    return content


def _details(content: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the other parts that a resumed run uses, each with whether a run could have written it.

    mmengine deletes the files that the last three name when it has better or newer ones.
    """
    state, hub = content['optimizer']['state'], content['message_hub']
    yield 'optimizer.state', all(isinstance(s, dict) and is_plain(_without_tensors(s)) for s in state.values())
    groups, schedulers = content['optimizer']['param_groups'], content.get('param_schedulers', [])
    held = _are_dicts(groups) and all(isinstance(group.get('params'), list) for group in groups)
    yield 'optimizer.param_groups', held and is_plain(groups)
    yield 'param_schedulers', _are_dicts(schedulers) and is_plain(schedulers)
    averages = content.get('ema_state_dict', {})
    yield 'ema_state_dict', isinstance(averages, dict) and not _without_tensors(averages)
    yield 'message_hub.resumed_keys', is_plain(hub['resumed_keys'])
    for part in ('log_scalars', 'runtime_info'):  # the logs print these names
        yield f'message_hub.{part}', all(isinstance(name, str) and name.isprintable() for name in hub[part])
    for name, value in hub['runtime_info'].items():
        where = f'message_hub.runtime_info.{name!r:.80}'
        if str(name).startswith('best_score'):
            yield where, isinstance(value, (int, float))
        elif str(name).startswith('best_ckpt'):
            yield where, is_line(value) and fnmatch(Path(value).name, 'best_*.pth')
        elif name == 'last_ckpt':
            yield where, is_line(value)
        elif name == 'keep_ckpt_ids':
            yield where, isinstance(value, list) and all(type(step) is int for step in value)


def _are_dicts(entries: Any) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)


def _without_tensors(state: dict) -> dict:
    return {key: value for key, value in state.items() if not isinstance(value, Tensor)}


def _check_bytes(path: Path) -> None:
    """Compare each part of the file with its checksum, which torch.load does not do."""
    must_be_file(path, 'The checkpoint to resume from, ')
    try:
        check_zip(path, allowed(path))
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
    except UNREADABLE as error:
        size = f'{path.stat().st_size:,} bytes'
        raise UserError(f'The checkpoint {path} is broken ({size}: {reason(error)}).') from error
    if damaged:
        raise UserError(f'The checkpoint {path} is broken (the checksum of its part {damaged} is wrong).')


def last_full_state(work_dir: str | Path) -> tuple[Path, dict[str, Any], list[str]]:
    """Return the newest whole ``epoch_N.pth`` of a run, its content, and why newer ones are skipped.

    One of another config counts as whole: it is reported later, and never leads to an older file.

    Raises:
        UserError: when no full state is whole.
    """
    numbered = [(int(m[1]), p) for p in Path(work_dir).glob('epoch_*.pth') if (m := NAME.fullmatch(p.name))]
    if not numbered:
        raise UserError(f'Nothing to resume: {work_dir} has no epoch_*.pth. Start the run without --resume.')
    reasons = []
    for _, path in sorted(numbered, reverse=True):
        try:
            return path, read_full_state(path), [f'{why} Resuming from the one before, {path}.' for why in reasons]
        except UserError as error:
            reasons.append(str(error))
    names = ', '.join(path.name for _, path in sorted(numbered, reverse=True))
    raise UserError(
        f'Nothing to resume: every full state in {work_dir} is broken ({names}). {reasons[0]} '
        'Start the run without --resume.'
    )


def check_optimizer(filename: str, state: dict[str, Any], optimizer: Optimizer) -> None:
    """Raise :class:`UserError` if an optimizer cannot continue from a full state's; a copy of it tries."""
    ours, groups = optimizer.param_groups, state['param_groups']
    pairs = list(zip(ours, groups, strict=False))
    lacking = any(set(our) - set(group) - {'initial_lr'} for our, group in pairs)
    if lacking or len(groups) != len(ours) or any(len(our['params']) != len(group['params']) for our, group in pairs):
        raise UserError(
            f'{filename} is for another config: its optimizer is not {type(optimizer).__name__} over the same '
            'parameters; optim_wrapper must be what it was.'
        )
    trial = copy.deepcopy(optimizer)
    try:
        trial.load_state_dict(copy.deepcopy(state))
        for parameter in (p for group in trial.param_groups for p in group['params']):
            parameter.grad = torch.zeros_like(parameter)
        trial.step()
    except Exception as error:
        raise UserError(
            f'{filename} is broken: {type(optimizer).__name__} cannot continue from its optimizer ({reason(error)}).'
        ) from error


def check_schedulers(filename: str, states: list[dict[str, Any]], schedulers: Iterable[Any]) -> None:
    """Raise :class:`UserError` for a state that does not fit its scheduler, whose attributes it would become."""
    for scheduler, state in zip(schedulers, states, strict=False):
        ours = scheduler.state_dict()
        wrong = next((k for k, v in state.items() if k not in ours or not _alike(v, ours[k])), None)
        if wrong is not None:
            raise UserError(
                f'{filename} is for another config: {wrong!r:.80} in its param_schedulers is not an attribute of '
                f'{type(scheduler).__name__}, or has another type there.'
            )


def _alike(theirs: Any, ours: Any) -> bool:
    """Return whether two values are both lists, both text, or both numbers or None."""
    return any(isinstance(theirs, kind) and isinstance(ours, kind) for kind in ((int, float, type(None)), list, str))
