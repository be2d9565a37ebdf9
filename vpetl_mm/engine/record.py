"""The record of a test run: what was tested, with which settings, and the accuracies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import UserError, is_line
from ..files import from_json, read_start, written_whole
from ..weights.torch_file import check_content

FORMAT = 'vpetl_mm result 1'
FILE = 'result.json'
MOST = 10**6  # bytes of a result
# --cfg-options that do not make another experiment: seed, paths, workers, batch (the learning rate follows it),
# recomputing for memory, what is logged and kept
NEUTRAL = (
    r'randomness\.seed',
    r'work_dir',
    r'model\.base\.(file|url|sha256)',
    r'model\.petl\.spt\.file',
    r'(train|val|test)_dataloader\.dataset\.(ann_file|data_root|data_prefix\..+|metainfo\.classes)',
    r'(train|val|test)_dataloader\.(num_workers|persistent_workers|prefetch_factor|pin_memory|batch_size)',
    r'optim_wrapper\.accumulative_counts',
    r'model\.backbone\.with_cp|activation_checkpointing',
    r'default_hooks\.(logger|checkpoint)\.(interval|max_keep_ckpts)',
    r'(env_cfg|vis_backends|visualizer|log_level|console|launcher)(\..+)?',
    r'after_epoch_\d+\.(processes|optim_wrapper\.accumulative_counts|train_dataloader\.(batch_size|drop_last))',
)


@dataclass(frozen=True)
class Record:
    """The result of a test run."""

    config: str  # the experiment's name, the config's file name without .py
    seed: int | None  # None if the config has none
    top1: float  # the accuracies are in percent
    top5: float
    mean_class: float
    params: int  # trainable
    total: int
    checkpoint: str  # the file that was tested
    epoch: int  # after which it was written
    samples: int  # that were tested
    options: dict[str, Any] = field(default_factory=dict)  # the --cfg-options by dotted key
    finished: str = ''  # in ISO format
    machine: str = ''
    by: dict[str, int] = field(default_factory=dict)  # trainable, by delta or train name; older results lack it
    trials: int = 0  # of the search that its settings were chosen from; older results lack it


def write_record(work_dir: str | Path, record: Record, name: str = FILE) -> Path:
    """Write a record into ``work_dir``, whole or not at all, and return the file.

    Raises:
        UserError: when a value is impossible; nothing is written then.
    """
    path = Path(work_dir, name)
    record = Record(**{**asdict(record), 'options': json_safe(record.options)})
    _check(record, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(format=FORMAT, **asdict(record)), indent=1)
    with written_whole(path) as partial:
        partial.write_text(f'{text}\n', encoding='utf-8')
    return path


def json_safe(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: mappings, lists, numbers, text; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(k): json_safe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(v) for v in value]
    held = value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and isfinite(value))
    return value if held else str(value)


def read_record(path: str | Path) -> Record:
    """Read a record.

    Raises:
        UserError: when it is missing, corrupt, of another format, or holds impossible values.
    """
    path = Path(path)
    try:
        content = from_json(read_start(path, MOST))
        check_content(content if isinstance(content, dict) else {}, path.stat().st_size)
    except OSError as error:
        raise UserError(f'The result {path} cannot be read: {error.strerror}.') from error
    except ValueError as error:
        raise UserError(f'The result {path} is corrupt ({error}); delete it and test again.') from error
    if not isinstance(content, dict) or content.pop('format', None) != FORMAT:
        raise UserError(f'{path} is not a result of this project: its format is not {FORMAT!r}.')
    names = {f.name for f in fields(Record)}
    content = dict(by={}, trials=0) | content
    if set(content) != names:
        wrong = sorted(names ^ set(content))[0]
        raise UserError(f'The result {path} is corrupt: {wrong} is {"missing" if wrong in names else "unknown"}.')
    record = Record(**content)
    _check(record, path)
    return record


def _check(record: Record, path: Path) -> None:
    accuracies = (record.top1, record.top5, record.mean_class)
    counts = (record.params, record.total, record.epoch, record.samples, record.trials)
    if not all(isinstance(a, (int, float)) and type(a) is not bool and 0 <= a <= 100 for a in accuracies):
        why = f'accuracies must lie between 0 and 100, not {", ".join(map(str, accuracies))}'
    elif record.top5 < record.top1 - 1e-6:
        why = f'top-5 ({record.top5}) cannot be below top-1 ({record.top1})'
    elif not all(type(c) is int and c >= 0 for c in counts) or record.params > record.total or not record.samples:
        why = f'params, total, epoch, samples and trials cannot be {", ".join(map(str, counts))}'
    elif not (record.seed is None or (type(record.seed) is int and record.seed >= 0)) or not isinstance(
        record.options, dict
    ):
        why = 'seed must be a whole number from 0 or null, and options a mapping'
    elif not all(map(is_line, (record.config, record.checkpoint, record.finished, record.machine))):
        why = 'config, checkpoint, finished and machine must be text, a line each, without control characters'
    elif Path(record.config).name != record.config:
        why = f'config must be the name of an experiment, and {record.config!r} is a path'
    elif not _adds_up(record):
        why = f'by must hold whole numbers by name that add up to params, not {str(record.by)[:200]}'
    elif not record.config or not _is_time(record.finished):
        why = f'it has no config, or {record.finished!r} is not an ISO time'
    else:
        return
    raise UserError(f'The result {path} holds impossible values: {why}.')


def _adds_up(record: Record) -> bool:
    if not isinstance(record.by, dict) or not all(map(is_line, record.by)):
        return False
    counts = [*record.by.values()]
    return not counts or (all(type(c) is int and c >= 0 for c in counts) and sum(counts) == record.params)


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def find_records(work_dirs: str | Path, broken: list[UserError] | None = None) -> dict[Path, Record]:
    """Read every record below a folder, by file, as :func:`read_record` does; the folders may have any names.

    Args:
        work_dirs: the folder.
        broken: gets the errors of those that cannot be read, which are then left out. Defaults to None: the first
            is raised.
    """
    records = {}
    # a pipe, or a link to /dev/zero, would be read without end
    for path in sorted(p for p in Path(work_dirs).rglob(FILE) if p.is_file()):
        try:
            records[path] = read_record(path)
        except UserError as error:
            if broken is None:
                raise
            broken.append(error)
    return records


def changed_options(options: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys of ``options`` that make another experiment."""
    return [key for key, _ in dotted_items(options) if not any(re.fullmatch(p, key) for p in NEUTRAL)]


def is_as_printed(record: Record) -> bool:
    """Return whether a run is its config's experiment: its options are seed, paths, workers and the like."""
    return not changed_options(record.options)


def dotted_items(options: Mapping[str, Any], prefix: str = '') -> Iterable[tuple[str, Any]]:
    """Yield each option, also inside mappings, with its dotted key."""
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from dotted_items(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value
