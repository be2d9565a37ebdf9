"""configs/metafile.yml: for every config the table cells that it answers, the paper's figures and ours."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, is_line, reason, unknown
from ..files import written_whole
from .names import parse_name

METAFILE = Path('configs', 'metafile.yml')
_KEYS = ('name', 'cells', 'paper', 'ours', 'where')


@dataclass(frozen=True)
class Paper:
    """What the paper prints for an experiment.

    Args:
        params_m: trainable parameters in millions.
        params_are: ``'own'``, or ``'mean5'`` where the mean over the five ViT tasks is printed.
        top1: in percent.
        top1_in: table cell -> the top-1 printed there, where a second table prints another.
    """

    params_m: float
    params_are: str
    top1: float
    top1_in: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ours:
    """What our runs of an experiment gave: accuracies in percent, means over the seeds.

    Args:
        top1, top5, mean_class: accuracies.
        params: trainable parameters.
        seeds: how many runs.
        spread: the standard deviation of top-1 over the seeds, 0 for one.
    """

    top1: float
    top5: float
    mean_class: float
    params: int
    seeds: int
    spread: float


@dataclass
class Entry:
    """One experiment.

    Args:
        name: the config's name.
        cells: the table cells that it answers, such as ``'T3/full/k400/f8'``; none for a demo config.
        paper: None where the paper prints nothing.
        ours: None until it was run.
        where: machine, commit and date of our runs.
        remarks: cell -> what there is to say of it, from the file's ``remarks``.
    """

    name: str
    cells: list[str] = field(default_factory=list)
    paper: Paper | None = None
    ours: Ours | None = None
    where: str | None = None
    remarks: dict[str, str] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """The data set, from the name."""
        return parse_name(self.name).dataset


def load_metafile(path: str | Path = METAFILE) -> list[Entry]:
    """The entries of a metafile, checked against each other and for their configs beside it.

    Args:
        path: the file; the configs are the ``*.py`` of its folder.

    Raises:
        UserError: for the first thing that is wrong, naming the entry.
    """
    content = _read(Path(path))
    entries = [_entry(raw, path) for raw in content['experiments']]
    _check_names(entries, Path(path))
    _check_cells(entries, path)
    for cell, text in content['remarks'].items():
        owners = [e for e in entries if cell in e.cells]
        if not owners:
            raise UserError(f'{path}: the remark on {cell} belongs to no entry.')
        for entry in owners:
            entry.remarks[cell] = ' '.join(str(text).split())
    return entries


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f'The metafile {path} does not exist.')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f'The metafile {path} is not YAML: {reason(error, 400)}.') from error
    if not isinstance(content, dict) or not isinstance(content.get('experiments'), list):
        raise UserError(f'The metafile {path} must have "experiments", a list, and may have "remarks".')
    for key in content:
        if key not in ('experiments', 'remarks'):
            raise unknown(f'key of {path}', key, ('experiments', 'remarks'))
    remarks = content.get('remarks') or {}
    if not isinstance(remarks, dict):
        raise UserError(f'{path}: remarks must be "cell: text" lines.')
    return dict(experiments=content['experiments'], remarks=remarks)


def _entry(raw: Any, path: str | Path) -> Entry:
    if not isinstance(raw, dict) or not isinstance(raw.get('name'), str):
        raise UserError(f'{path}: an entry must have a name, got {raw!r}.')
    name = raw['name']
    for key in raw:
        if key not in _KEYS:
            raise unknown(f'key of {name} in {path}', key, _KEYS)
    parse_name(name)
    cells, where = raw.get('cells') or [], raw.get('where')
    if not isinstance(cells, list) or not all(isinstance(c, str) and re.fullmatch(r'T\d/\S+', c) for c in cells):
        raise UserError(f'{path}: cells of {name} must be a list such as [T3/full/k400/f8], got {cells!r}.')
    if where is not None and not is_line(where):
        raise UserError(f'{path}: where of {name} must be a line of text (machine, commit, date), got {where!r}.')
    paper, ours = (_figures(cls, raw.get(key), f'{key} of {name} in {path}') for cls, key in _FIGURES)
    if bool(cells) != (paper is not None):
        raise UserError(f'{path}: {name} must have both cells and paper, or neither.')
    return Entry(name, cells, paper, ours, where)


def _figures(cls: type, raw: Any, what: str) -> Any:
    """A :class:`Paper` or :class:`Ours` from its mapping, every number in its range."""
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise UserError(f'{what} must be null or a mapping, got {raw!r}.')
    names = [f.name for f in fields(cls)]
    for key in raw:
        if key not in names:
            raise unknown(f'key in {what}', key, names)
    missing = [n for n in names if n not in raw and n != 'top1_in']
    if missing:
        raise UserError(f'{what} lacks {missing[0]}.')
    if raw.get('params_are', 'own') not in ('own', 'mean5'):
        raise unknown(f'params_are in {what}', raw['params_are'], ('own', 'mean5'))
    numbers = {k: v for k, v in raw.items() if k not in ('params_are', 'top1_in')} | (raw.get('top1_in') or {})
    for key, value in numbers.items():
        limit = float('inf') if key in ('params', 'params_m', 'seeds') else 100
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= limit:
            raise UserError(f'{key} in {what} must be a number from 0 to {limit:g}, got {value!r}.')
    if 'top5' in raw and raw['top5'] < raw['top1']:
        raise UserError(f'top5 in {what} cannot be below top1.')
    return cls(**raw)


_FIGURES = ((Paper, 'paper'), (Ours, 'ours'))


def _check_names(entries: Sequence[Entry], path: Path) -> None:
    names = [e.name for e in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'{path}: {name} has two entries.')
        if not (path.parent / f'{name}.py').is_file():
            raise UserError(f'{path}: {name} has no config: {path.parent / name}.py does not exist.')


def check_complete(entries: Sequence[Entry], configs: Path) -> None:
    """Raise :class:`UserError` for a config that has no entry; for the project's own, as users add theirs."""
    names = {e.name for e in entries}
    for config in sorted(Path(configs).glob('*.py')):
        if config.stem not in names:
            parse_name(config.stem)
            raise UserError(f'{configs}: the config {config.name} has no entry in the metafile.')


def _check_cells(entries: Sequence[Entry], path: str | Path) -> None:
    answered: dict[tuple[str, str], str] = {}
    for entry in entries:
        for cell in entry.cells:
            other = answered.setdefault((cell, entry.dataset), entry.name)
            if other != entry.name or entry.cells.count(cell) > 1:
                raise UserError(f'{path}: {cell} on {entry.dataset} is answered by {other} and by {entry.name}.')
        for cell in entry.paper.top1_in if entry.paper else ():
            if cell not in entry.cells:
                raise UserError(f'{path}: top1_in of {entry.name} names {cell}, which is none of its cells.')


def render_metafile(entries: Sequence[Entry], header: str = '') -> str:
    """The text of a metafile, an entry in five lines; what :func:`load_metafile` reads.

    Args:
        entries: in the order to write.
        header: comment lines to begin with.
    """
    lines = [header.rstrip('\n')] if header else []
    remarks = {cell: text for entry in entries for cell, text in entry.remarks.items()}
    if remarks:
        lines += ['remarks:', *(f'  {cell}: {json.dumps(text)}' for cell, text in remarks.items())]
    lines.append('experiments:')
    for entry in entries:
        lines += [f'- name: {entry.name}', f'  cells: [{", ".join(entry.cells)}]']
        lines += [f'  paper: {_flow(entry.paper)}', f'  ours: {_flow(entry.ours)}']
        lines.append(f'  where: {"null" if entry.where is None else json.dumps(entry.where)}')
    return '\n'.join(lines) + '\n'


def _flow(value: Paper | Ours | Mapping[str, Any] | None) -> str:
    if value is None:
        return 'null'
    mapping = value if isinstance(value, Mapping) else {k: v for k, v in asdict(value).items() if v != {}}
    parts = (f'{k}: {_flow(v) if isinstance(v, dict) else v}' for k, v in mapping.items())
    return '{' + ', '.join(parts) + '}'


def write_metafile(path: str | Path, entries: Sequence[Entry]) -> None:
    """Write ``entries`` over a metafile, whole or not at all; its leading comment stays."""
    path = Path(path)
    header = re.match(r'(#.*\n)*', path.read_text(encoding='utf-8'))[0] if path.is_file() else ''
    with written_whole(path) as partial:
        partial.write_text(render_metafile(entries, header), encoding='utf-8')
