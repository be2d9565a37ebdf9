"""configs/metafile.yml: for every experiment the table cells that it answers, the paper's figures and ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from vpetl_cli.shipped import experiments, leaf_of, names_of

from ..errors import UserError, is_line, reason, unknown
from ..files import written_whole
from .names import parse_name

METAFILE = Path('configs', 'metafile.yml')
# figures above 100, those that are whole numbers, and the largest
UNBOUND, WHOLE, MOST = ('params', 'params_m', 'seeds', 'hours'), ('params', 'seeds'), 1e15
# what SPT tunes, as paramwise_cfg.groups calls it: single weights, whole vectors, updates
APART = ('entries', 'vectors', 'deltas')


@dataclass(frozen=True)
class Paper:
    """The paper's figures for an experiment.

    Args:
        params_m: trainable parameters in millions.
        params_are: ``'own'``, or ``'mean5'`` if the mean over the five ViT tasks is printed.
        top1: in percent.
        top1_in: table cell -> the top-1 printed there, if a second table prints another.
    """

    params_m: float
    params_are: str
    top1: float
    top1_in: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SeedResult:
    """Our result of one seed: accuracies in percent.

    Args:
        params: trainable parameters.
        hours: from the start of the run to the end of its test; 0 where they are not known.
    """

    top1: float
    top5: float
    mean_class: float
    params: int
    hours: float = 0.0


@dataclass(frozen=True)
class Ours:
    """Our results of an experiment: accuracies in percent, means over the seeds.

    Args:
        params: trainable parameters.
        seeds: the number of runs.
        spread: the standard deviation of top-1 over the seeds, 0 for one.
        hours: of all runs together; 0 where those of one are not known.
    """

    top1: float
    top5: float
    mean_class: float
    params: int
    seeds: int
    spread: float
    hours: float = 0.0


@dataclass
class Entry:
    """One experiment.

    Args:
        name: the experiment's name.
        cells: the table cells that it answers, such as ``'T3/full/k400/f8'``; none for a demo config.
        paper: None if the paper prints nothing.
        ours: None until it was run.
        by_seed: the runs behind ``ours``; older results lack them.
        where: machine, commit and date of our runs.
        search: learning rate -> top-1 on held-out training data in the search that chose ours; None for a trial that
            failed.
        apart: part of what SPT tunes -> factor on its learning rate -> top-1, likewise, in a search for that alone.
        remarks: cell -> remark, from the file's ``remarks``.
    """

    name: str
    cells: list[str] = field(default_factory=list)
    paper: Paper | None = None
    ours: Ours | None = None
    where: str | None = None
    search: dict[float, float | None] = field(default_factory=dict)
    apart: dict[str, dict[float, float | None]] = field(default_factory=dict)
    by_seed: dict[int, SeedResult] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """The data set, from the name."""
        return parse_name(self.name).dataset


def mean_of(runs: Iterable[SeedResult]) -> Ours:
    """Return the mean and the spread of one experiment's runs, accuracies to a hundredth."""
    runs = [*runs]
    scores = [r.top1 for r in runs]
    figures = [round(mean(getattr(r, k) for r in runs), 2) for k in ('top1', 'top5', 'mean_class')]
    params = round(mean(r.params for r in runs))  # SPT's differ by the seed
    spread = round(stdev(scores), 2) if len(scores) > 1 else 0.0
    hours = round(sum(r.hours for r in runs), 3) if all(r.hours for r in runs) else 0.0
    return Ours(*figures, params, len(runs), spread, hours)


def load_metafile(path: str | Path = METAFILE) -> list[Entry]:
    """Return the entries of a metafile beside its configs; one for a VTAB-1k leaf becomes an entry per experiment.

    Raises:
        UserError: for the first thing that is wrong, naming the entry.
    """
    path = Path(path)
    listed, remarks = _read(path)
    entries = [_entry(raw, path) for one in listed for raw in _expanded(one, path)]
    _check(entries, path)
    for cell, text in remarks.items():
        owners = [e for e in entries if cell in e.cells]
        if not owners:
            raise UserError(f'{path}: the remark on {cell} belongs to no entry.')
        for entry in owners:
            entry.remarks[cell] = ' '.join(str(text).split())
    return entries


def _read(path: Path) -> tuple[list[Any], dict[str, str]]:
    if not path.is_file():
        raise UserError(f'The metafile {path} does not exist.')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an impossible date or number
        raise UserError(f'The metafile {path} is not YAML: {reason(error, 400)}.') from error
    if not isinstance(content, dict) or not isinstance(content.get('experiments'), list):
        raise UserError(f'The metafile {path} must have "experiments", a list, and may have "remarks".')
    remarks = _mapping(content, f'the metafile {path}', ('experiments', 'remarks')).get('remarks') or {}
    return content['experiments'], _mapping(remarks, f'remarks of {path}')


def _mapping(raw: Any, what: str, valid: Sequence[str] | None = None) -> dict[str, Any]:
    """Return ``raw`` once it is a mapping with valid keys."""
    if not isinstance(raw, dict):
        raise UserError(f'{what} must be a mapping, got {raw!r}.')
    for key in raw:
        if valid and key not in valid:
            raise unknown(f'key of {what}', key, valid)
    return raw


def _expanded(raw: Any, path: Path) -> list[Any]:
    """Return the entries that an item of the file stands for: one per experiment of a VTAB-1k leaf, else itself."""
    leaf = str(raw.get('name')) if isinstance(raw, dict) else ''
    names = names_of(leaf)
    if names == (leaf,):
        return [raw]
    runs = _mapping(raw, f'{leaf} in {path}', ('name', 'runs')).get('runs') or {}
    for name, run in _mapping(runs, f'runs of {leaf} in {path}').items():
        _mapping(run, f'{name} in {path}', ('ours', 'where', 'by_seed'))
    # a name that is not one of the leaf's is refused as any other wrong entry
    return [dict(runs.get(name, {}), name=name) for name in dict.fromkeys([*names, *runs])]


def _entry(raw: Any, path: Path) -> Entry:
    if not isinstance(raw, dict) or not isinstance(raw.get('name'), str):
        raise UserError(f'{path}: an entry must have a name, got {raw!r}.')
    name = raw['name']
    _mapping(raw, f'{name} in {path}', ('name', 'cells', 'paper', 'ours', 'where', 'search', 'apart', 'by_seed'))
    parse_name(name)
    cells, where = raw.get('cells') or [], raw.get('where')
    if not isinstance(cells, list) or not all(isinstance(c, str) and re.fullmatch(r'T\d/\S+', c) for c in cells):
        raise UserError(f'{path}: cells of {name} must be a list such as [T3/full/k400/f8], got {cells!r}.')
    if where is not None and not is_line(where):
        raise UserError(f'{path}: where of {name} must be a line of text (machine, commit, date), got {where!r}.')
    paper = _figures(Paper, raw.get('paper'), f'paper of {name} in {path}')
    ours = _figures(Ours, raw.get('ours'), f'ours of {name} in {path}')
    by_seed = _by_seed(raw.get('by_seed') or {}, f'by_seed of {name} in {path}')
    if by_seed and ours:
        raise UserError(f'{path}: {name} has by_seed, and ours is their mean: leave ours out.')
    if bool(cells) != (paper is not None):
        raise UserError(f'{path}: {name} must have both cells and paper, or neither.')
    search = _search(raw.get('search') or {}, f'search of {name} in {path}')
    apart = {
        part: _search(found, f'{part} in apart of {name} in {path}')
        for part, found in _mapping(raw.get('apart') or {}, f'apart of {name} in {path}', APART).items()
    }
    return Entry(name, cells, paper, mean_of(by_seed.values()) if by_seed else ours, where, search, apart, by_seed)


def _by_seed(raw: Any, what: str) -> dict[int, SeedResult]:
    """Return the runs by seed."""
    for seed in _mapping(raw, what):
        if type(seed) is not int or seed < 0:
            raise UserError(f'{what} must have seeds, whole numbers from 0, got {seed!r}.')
        if raw[seed] is None:
            raise UserError(f'seed {seed} in {what} must be a mapping, got nothing.')
    return {seed: _figures(SeedResult, run, f'seed {seed} in {what}') for seed, run in raw.items()}


def _search(raw: Any, what: str) -> dict[float, float | None]:
    """Return what a search found by learning rate or by factor on it, every number in its range."""
    for rate, value in _mapping(raw, what).items():
        if not _is_number(rate, MOST) or not rate or not (value is None or _is_number(value, 100)):
            raise UserError(f'{what} must have numbers above 0, and top-1 or null of each, got {rate!r}: {value!r}.')
    return raw


def _is_number(value: Any, limit: float, whole: bool = False) -> bool:
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value <= limit


def _figures(cls: type, raw: Any, what: str) -> Any:
    """Return a :class:`Paper` or :class:`Ours` from its mapping, every number in its range."""
    if raw is None:
        return None
    names = [f.name for f in fields(cls)]
    _mapping(raw, what, names)
    missing = [n for n in names if n not in raw and n not in ('top1_in', 'hours')]
    if missing:
        raise UserError(f'{what} lacks {missing[0]}.')
    if raw.get('params_are', 'own') not in ('own', 'mean5'):
        raise unknown(f'params_are in {what}', raw['params_are'], ('own', 'mean5'))
    printed = _mapping(raw.get('top1_in') or {}, f'top1_in in {what}')
    for key, value in ({k: v for k, v in raw.items() if k not in ('params_are', 'top1_in')} | printed).items():
        limit, whole = MOST if key in UNBOUND else 100, key in WHOLE
        if not _is_number(value, limit, whole):
            raise UserError(f'{key} in {what} must be a {"whole " * whole}number from 0 to {limit:g}, got {value!r}.')
    if raw.get('seeds') == 0:
        raise UserError(f'seeds in {what} must be at least 1.')
    if 'top5' in raw and raw['top5'] < raw['top1']:
        raise UserError(f'top5 in {what} cannot be below top1.')
    return cls(**raw)


def _check(entries: Iterable[Entry], path: Path) -> None:
    """Check the entries against each other and against the configs."""
    there, seen, answered = experiments(path.parent), set(), {}
    for entry in entries:
        if entry.name in seen:
            raise UserError(f'{path}: {entry.name} has two entries.')
        if entry.name not in there:
            raise UserError(f'{path}: {entry.name} has no config in {path.parent}.')
        seen.add(entry.name)
        for cell in entry.cells:
            other = answered.setdefault((cell, entry.dataset), entry.name)
            if other != entry.name or entry.cells.count(cell) > 1:
                raise UserError(f'{path}: {cell} on {entry.dataset} is answered by {other} and by {entry.name}.')
        for cell in entry.paper.top1_in if entry.paper else ():
            if cell not in entry.cells:
                raise UserError(f'{path}: top1_in of {entry.name} names {cell}, which is not one of its cells.')


def write_metafile(path: str | Path, entries: Iterable[Entry]) -> None:
    """Write entries over a metafile, whole or not at all; its leading comment stays.

    Entries of a VTAB-1k leaf must stand side by side.

    Raises:
        UserError: for entries that :func:`load_metafile` would refuse; the file stays as it is.
    """
    path, remarks, listed = Path(path), {}, []
    for leaf, group in groupby(entries, lambda entry: leaf_of(entry.name)[0]):
        rows = {entry.name: _pruned(asdict(entry)) for entry in group}
        for row in rows.values():
            remarks |= row.pop('remarks', {})
            if row.get('by_seed'):
                row.pop('ours', None)  # their mean
        if leaf in rows:
            listed.append(rows[leaf])
        else:
            runs = {name: {k: v for k, v in row.items() if k != 'name'} for name, row in rows.items()}
            listed.append(_pruned(dict(name=leaf, runs=runs)))
    header = re.match(r'(#.*\n)*', path.read_text(encoding='utf-8'))[0]
    options = dict(sort_keys=False, allow_unicode=True, width=118)
    with written_whole(path) as partial:
        text = yaml.safe_dump(dict(remarks=remarks), **options) if remarks else ''
        text += yaml.safe_dump(dict(experiments=listed), default_flow_style=None, **options)
        partial.write_text(header + text, encoding='utf-8')
        load_metafile(partial)


def _pruned(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested mapping without what is None or empty."""
    items = (
        (k, _pruned(v) if isinstance(v, dict) and k not in ('search', 'apart') else v) for k, v in mapping.items()
    )
    return {k: v for k, v in items if v not in (None, [], {}) and (k, v) != ('hours', 0.0)}
