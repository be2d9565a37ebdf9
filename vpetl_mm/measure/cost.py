"""What a training step of an experiment takes, kept for the shipped ones in ``configs/costs.json``.

A step is run on fake tensors, which takes seconds; the file spares them. Its entries are found by a hash of what
decides them, so that an edited config is computed anew.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mmengine import Config

from vpetl_cli.shipped import configs, experiments, leaf_of

from ..config import load_config
from ..errors import UserError
from ..files import file_sha256, from_json
from ..models.build import build_model
from .count import tracked, trains_by_budget
from .fake_step import FakeStep, fake_step

FILE, FORMAT = 'costs.json', 'vpetl_mm costs 1'
CLASSES = 100  # of the head in every entry's step: it is a thousandth of the work
BATCHES = (2, 4)  # a BatchNorm takes no single sample
CODE = ('petl', 'models', 'fast', 'spt', 'measure')  # packages
MOST_BYTES = 2**22  # of the file
MOST = 2**60  # that an entry's number may be


class Line(NamedTuple):
    """A quantity that grows by the same for each sample, or class: ``fixed + each * n``."""

    fixed: int
    each: int

    def at(self, n: int) -> int:
        """Return the quantity for ``n`` samples or classes."""
        return self.fixed + self.each * n


@dataclass(frozen=True)
class Cost:
    """What a model and its training step take.

    Args:
        trained: how many parameters train, by the number of classes.
        held: bytes of all parameters and buffers, by the number of classes.
        saved: bytes that the forward pass keeps for the backward pass, by the batch.
        forward: FLOPs of the forward pass, by the batch.
        step: FLOPs of forward and backward pass, no path dropped, by the batch.
    """

    trained: Line
    held: Line
    saved: Line
    forward: Line
    step: Line


def is_mixed(cfg: Config) -> bool:
    """Tell whether an experiment trains in mixed precision."""
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    return 'Autocast' in wrapper or 'Amp' in wrapper


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


def classes_of(cfg: Config) -> int:
    """Return the classes that an experiment's head tells apart; 0 where the config does not say."""
    return (_head(cfg.model) or {}).get('num_classes') or 0


def _head(model: Mapping[str, Any]) -> Any:
    return model.get('cls_head') or model.get('head')


def key_of(cfg: Config) -> str:
    """Return the hash of what decides an experiment's cost.

    That is its model without the weights to load, its classes and SPT's file; the shape of its inputs; its precision.
    """
    model = {k: v for k, v in cfg.model.to_dict().items() if k != 'base'}
    if classes_of(cfg):
        _head(model)['num_classes'] = 0
    if trains_by_budget(model):
        model['petl']['spt'].pop('file', None)
    text = json.dumps([model, input_shape(cfg), is_mixed(cfg)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_classes(cfg: Config, classes: int) -> Config:
    cfg = copy.deepcopy(cfg)
    if classes_of(cfg):
        _head(cfg.model)['num_classes'] = classes
    return cfg


def cost_of(cfg: Config) -> Cost:
    """Return an experiment's cost, from the file if it is there, else computed (seconds).

    Of SPT, whose file decides what trains, it is that of full tuning, which is more.

    Raises:
        UserError: for a model that cannot be built, inputs of unknown size, and a corrupt ``costs.json``.
    """
    key = key_of(cfg)
    if (known := stored(configs() / FILE).get(key)) is not None:
        return known
    if key not in _computed:
        _computed[key] = compute(cfg)
    return _computed[key]


_computed: dict[str, Cost] = {}


def compute(cfg: Config) -> Cost:
    """Compute an experiment's cost on fake tensors; of SPT, that of full tuning. Raises as :func:`cost_of`."""
    if trains_by_budget(cfg.model):
        cfg = copy.deepcopy(cfg)
        cfg.model.petl = dict({k: v for k, v in cfg.model.petl.items() if k != 'spt'}, deltas={}, train=['all'])
    sizes = [_sizes(_with_classes(cfg, n)) for n in (CLASSES, CLASSES + 1)]
    trained, held = (_line(CLASSES, pair, 1) for pair in zip(*sizes, strict=True))
    model = [build_model(_with_classes(cfg, CLASSES), meta=True) for _ in BATCHES]
    shapes = [(batch, *input_shape(cfg)) for batch in BATCHES]
    steps = [fake_step(m, shape, is_mixed(cfg)) for m, shape in zip(model, shapes, strict=True)]
    apart = BATCHES[1] - BATCHES[0]
    by_batch = {f: _line(BATCHES[0], tuple(getattr(s, f) for s in steps), apart) for f in FakeStep._fields}
    return Cost(trained, held, **by_batch)


def _sizes(cfg: Config) -> tuple[int, int]:
    """Return the parameters that train, a count, and the bytes of all and of the buffers."""
    model = build_model(cfg, meta=True)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained, sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def _line(first: int, values: tuple[int, int], apart: int) -> Line:
    each = (values[1] - values[0]) // apart
    return Line(values[0] - each * first, each)


def stored(file: Path) -> dict[str, Cost]:
    """Return key -> cost of a file; nothing where there is none.

    Raises:
        UserError: for a corrupt file.
    """
    if not file.is_file():
        return {}
    return _content(file)[1]


def _content(file: Path) -> tuple[str, dict[str, Cost]]:
    """Return the digest of the code that computed a file's costs, empty if it is not known, and key -> cost."""
    about = file.stat()
    return _read(file.resolve(), about.st_mtime_ns, about.st_size)


@cache
def _read(file: Path, _: int, size: int) -> tuple[str, dict[str, Cost]]:
    try:
        if size > MOST_BYTES:
            raise ValueError(f'{size:,} bytes')
        content = from_json(file.read_text(encoding='utf-8'))
        if not isinstance(content, dict) or content.get('format') != FORMAT:
            raise ValueError(f'its format is not {FORMAT!r}')
        return str(content.get('code', '')), {key: _cost(key, entry) for key, entry in content['costs'].items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f'{file} is corrupt ({error}): restore it, or delete it to do without.') from error


def _cost(key: str, entry: Any) -> Cost:
    names = {f.name for f in fields(Cost)}
    if not isinstance(entry, dict) or {*entry} != names:
        raise ValueError(f'{key} has not {", ".join(sorted(names))}')
    for pair in entry.values():
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and 0 <= n < MOST for n in pair)):
            raise ValueError(f'{key} holds {str(pair)[:40]}, not two counts')
    return Cost(**{name: Line(*pair) for name, pair in entry.items()})


def digest_of_code() -> str:
    """Return a hash of the code that decides what a step takes: :data:`CODE`."""
    root = Path(__file__).parents[1]
    sums = [(str(p.relative_to(root)), file_sha256(p)) for part in CODE for p in root.joinpath(part).rglob('*.py')]
    return hashlib.sha256(json.dumps(sorted(sums)).encode()).hexdigest()[:16]


def refreshed(folder: Path = Path('configs')) -> str:
    """Return the text of ``costs.json`` for the experiments of a folder: what it lacks is computed, the rest dropped.

    All are computed anew (minutes) if the code has changed since.

    Args:
        folder: of the configs, with the file. Experiments whose pipeline states no size, as the demo's, are left out.
    """
    code, costs, there = digest_of_code(), {}, experiments(folder)
    known = stored(folder / FILE)
    if known and _content(folder / FILE)[0] != code:
        known = {}
    for name in tracked(one_of_each(there), 'computing costs'):
        cfg = load_config(there[name])
        try:
            key = key_of(cfg)
        except UserError:
            continue
        costs[key] = known.get(key) or costs.get(key) or compute(cfg)
    lines = [f'{json.dumps(k)}: {json.dumps({n: [*v] for n, v in vars(costs[k]).items()})}' for k in sorted(costs)]
    head = f'"format": {json.dumps(FORMAT)}, "code": {json.dumps(code)}'
    return f'{{{head}, "costs": {{\n' + ',\n'.join(lines) + '\n}}\n'


def one_of_each(names: Iterable[str]) -> list[str]:
    """Return experiments with one of each VTAB-1k leaf, whose tasks and weights cost the same."""
    return list({leaf_of(name)[0]: name for name in names}.values())
