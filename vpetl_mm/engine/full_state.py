"""Full states of a run, ``epoch_N.pth``: which of them are whole, and which is the last."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mmengine import Config
from torch import Tensor

from ..errors import UserError
from ..weights.contents import must_be_file
from ..weights.torch_file import check_zip
from .adapter import read_checkpoint
from .checkpoint_meta import check_parts, is_plain

# what zipfile raises on a damaged file; RuntimeError where damage looks like encryption or an unknown compression
UNREADABLE = (OSError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, zlib.error)
NAME = re.compile(r'epoch_(\d+)\.pth')
# what a resumed run takes up; param_schedulers are missing where the config has none
PARTS = {'meta': dict, 'state_dict': dict, 'optimizer': dict, 'message_hub': dict}
META = {'epoch': int, 'iter': int}
OPTIMIZER = {'state': dict, 'param_groups': list}
MESSAGE_HUB = {'log_scalars': dict, 'runtime_info': dict, 'resumed_keys': dict}


def read_full_state(file: str | Path) -> dict[str, Any]:
    """A full state's content, read with ``weights_only=True``, after every byte of it was checked.

    Raises:
        UserError: when it is missing, damaged, an adapter, or lacks a part that a resumed run needs.
    """
    path = Path(file)
    _check_bytes(path)
    content = read_checkpoint(path)
    if 'adapter_format' in content['meta'] and 'optimizer' not in content:
        raise UserError(f'{path} cannot be resumed from: it is an adapter; resume from an epoch_*.pth.')
    for name, parts in (('', PARTS), ('meta', META), ('optimizer', OPTIMIZER), ('message_hub', MESSAGE_HUB)):
        check_parts(path, content[name] if name else content, parts, f'{name}.' if name else '')
    if not content['state_dict']:
        raise UserError(f'The checkpoint {path} is broken: its state_dict is empty.')
    _check_dicts(path, 'optimizer.param_groups', content['optimizer']['param_groups'], ('params',))
    _check_dicts(path, 'param_schedulers', content.get('param_schedulers', []))
    for name, right in _details(content):
        if not right:
            raise UserError(f'The checkpoint {path} is broken: {name} is not what a run of this project writes.')
    return content


def _details(content: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Each further part that a resumed run takes up, and whether it is what one writes.

    mmengine deletes the files that the last three name when it has better or newer ones.
    """
    state, hub = content['optimizer']['state'], content['message_hub']
    yield 'optimizer.state', all(isinstance(s, dict) and is_plain(_without_tensors(s)) for s in state.values())
    yield 'optimizer.param_groups', is_plain(content['optimizer']['param_groups'])
    yield 'param_schedulers', is_plain(content.get('param_schedulers'))
    averages = content.get('ema_state_dict', {})
    yield 'ema_state_dict', isinstance(averages, dict) and not _without_tensors(averages)
    yield 'message_hub.resumed_keys', is_plain(hub['resumed_keys'])
    for name, value in hub['runtime_info'].items():
        where, line = f'message_hub.runtime_info.{name!r:.80}', isinstance(value, str) and value.isprintable()
        if str(name).startswith('best_score'):
            yield where, isinstance(value, (int, float))
        elif str(name).startswith('best_ckpt'):
            yield where, line and fnmatch(Path(value).name, 'best_*.pth')
        elif name == 'last_ckpt':
            yield where, line
        elif name == 'keep_ckpt_ids':
            yield where, isinstance(value, list) and all(type(step) is int for step in value)


def _without_tensors(state: dict) -> dict:
    return {key: value for key, value in state.items() if not isinstance(value, Tensor)}


def _check_bytes(path: Path) -> None:
    """Compare each part of the file with its checksum, which torch.load does not do."""
    must_be_file(path, 'The checkpoint to resume from, ')
    try:
        check_zip(path)
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
    except UNREADABLE as error:
        size = f'{path.stat().st_size:,} bytes'
        raise UserError(f'The checkpoint {path} is broken ({size}: {str(error) or type(error).__name__}).') from error
    if damaged:
        raise UserError(f'The checkpoint {path} is broken (the checksum of its part {damaged} is wrong).')


def _check_dicts(path: Path, where: str, entries: Any, lists: tuple[str, ...] = ()) -> None:
    """Refuse what is no list of dicts, each with a list under each of the names ``lists``."""
    dicts = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if not dicts or not all(isinstance(entry.get(name), list) for entry in entries for name in lists):
        what = f'dicts with {" and ".join(lists)}' if lists else 'dicts'
        raise UserError(f'The checkpoint {path} is broken: {where} is no list of {what}.')


def last_full_state(work_dir: str | Path) -> tuple[Path, list[str]]:
    """The newest ``epoch_N.pth`` of a run that is whole, and why the newer ones are passed over.

    Whether it belongs to the config is another question, which never leads to an older file.

    Raises:
        UserError: when there is none.
    """
    numbered = [(int(m[1]), p) for p in Path(work_dir).glob('epoch_*.pth') if (m := NAME.fullmatch(p.name))]
    if not numbered:
        raise UserError(f'Nothing to resume: {work_dir} has no epoch_*.pth. Start the run without --resume.')
    reasons = []
    for _, path in sorted(numbered, reverse=True):
        try:
            read_full_state(path)
        except UserError as error:
            reasons.append(str(error))
            continue
        return path, [f'{reason} Resuming from the one before, {path}.' for reason in reasons]
    names = ', '.join(path.name for _, path in sorted(numbered, reverse=True))
    raise UserError(
        f'Nothing to resume: every full state in {work_dir} is broken ({names}). {reasons[0]} '
        'Start the run without --resume.'
    )


def resumed(cfg: Config) -> tuple[Config, list[str]]:
    """The config with the full state that it continues, and why newer ones are passed over.

    Raises:
        UserError: when there is nothing whole to resume, or the file that the user named is not whole: that one is
            never exchanged for another.
    """
    if not cfg.get('resume'):
        return cfg, []
    if cfg.get('load_from'):
        read_full_state(cfg.load_from)
        return cfg, []
    cfg = cfg.copy()
    last, reasons = last_full_state(cfg.work_dir)
    cfg.load_from = str(last)
    return cfg, reasons
