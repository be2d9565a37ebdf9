"""Count what every method trains on every host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine import Config
from torch import nn

from vpetl_cli.shipped import configs

from ..config import load_config
from ..errors import UserError
from ..models.build import build_model, on_meta
from ..models.petl_model import delta_type
from ..petl import Plan, check_petl, layout_of
from ..petl.placing import take_off
from .count import shape_of, tracked, trains_by_budget
from .methods import is_video, methods_of, on_host, trained_in_backbone

BY_BUDGET = 'a sensitivity file, made from the data, and a budget decide what trains'


@dataclass(frozen=True)
class HostColumn:
    """What the methods train on one host.

    Args:
        host: the name of its config.
        video: whether it takes clips; images otherwise.
        trains: method -> how many parameters of the backbone train, or why there is no number.
    """

    host: str
    video: bool
    trains: dict[str, int | str]


def count_methods(names: str, hosts: Sequence[str | Path] = ()) -> list[HostColumn]:
    """Count, on the meta device, what methods train in hosts besides their heads, with a progress bar on a terminal.

    Args:
        names: the methods; see :func:`~.methods.methods_of`.
        hosts: experiments whose hosts are taken. Defaults to none: all of ``configs/_base_/models``.

    Raises:
        UserError: for a method that does not exist, or a host that cannot be built.
    """
    given = {Path(host).stem: load_config(host) for host in hosts} or dict(_shipped())
    kinds = {is_video(cfg.model) for cfg in given.values()}
    methods = {video: methods_of(names, video) for video in kinds}
    found: dict[str, dict[str, int | str]] = {}  # by the host's shape: several differ in their weights alone
    for name, cfg in tracked(given.items(), 'hosts'):
        shape = shape_of(cfg.model)
        if shape not in found:
            found[shape] = _counted(name, cfg, methods[is_video(cfg.model)])
    return [HostColumn(name, is_video(cfg.model), found[shape_of(cfg.model)]) for name, cfg in given.items()]


def _shipped() -> Iterator[tuple[str, Config]]:
    """Yield the models of ``configs/_base_/models``, without the choice of their weights."""
    for file in sorted((configs() / '_base_/models').glob('*.py')):
        cfg = Config.fromfile(file)
        cfg.model['cls_head' if is_video(cfg.model) else 'head'].num_classes = 2
        yield file.stem, cfg


def _counted(name: str, cfg: Config, methods: Mapping[str, Mapping[str, Any]]) -> dict[str, int | str]:
    cfg = on_host(cfg, dict(train=[], fast=False))
    cfg.model.base = None
    try:
        model = build_model(cfg, meta=True)
    except UserError as error:
        raise UserError(f'{name}: {error}') from error
    return {n: _trained(model, petl) for n, petl in methods.items()}


def _trained(model: nn.Module, petl: Mapping[str, Any]) -> int | str:
    """Count what a method trains in a host without deltas, which it is again afterwards; or say why not."""
    if trains_by_budget(dict(petl=petl)):
        return BY_BUDGET
    petl = check_petl(petl)
    try:
        with on_meta():
            Plan(model, 'backbone', model.head_name, petl['deltas'], petl['train'], delta_type)
        return trained_in_backbone(model)
    except UserError as error:
        return re.split('; (?:valid|it has): ', str(error))[0]  # what a host has instead is no reason
    finally:
        take_off(layout_of(model.backbone), model.backbone)


def methods_table(columns: Sequence[HostColumn]) -> str:
    """Format method x host as Markdown tables, for images and for clips; hosts that agree in all share a column."""
    tables = (
        f'Hosts of {"clips" if video else "images"}:\n\n{_table([c for c in columns if c.video == video])}'
        for video in (False, True)
        if any(c.video == video for c in columns)
    )
    return '\n\n'.join(['Parameters of the backbone that train; the head comes on top.', *tables])


def _table(columns: Sequence[HostColumn]) -> str:
    same: dict[tuple, list[HostColumn]] = {}
    for column in columns:
        same.setdefault(tuple(column.trains.items()), []).append(column)
    first = [group[0] for group in same.values()]
    lines = [f'| method | {" | ".join(c.host for c in first)} |', f'| --- |{" ---: |" * len(first)}']
    reasons: dict[str, int] = {}

    def cell(trains: int | str) -> str:
        return f'{trains:,}' if isinstance(trains, int) else f'({reasons.setdefault(trains, len(reasons) + 1)})'

    lines += [f'| {method} | {" | ".join(cell(c.trains[method]) for c in first)} |' for method in columns[0].trains]
    lines += ['']
    lines += [f'{g[0].host} stands for {", ".join(c.host for c in g[1:])} too.' for g in same.values() if g[1:]]
    lines += [f'- ({number}) {reason}' for reason, number in reasons.items()]
    return '\n'.join(lines).rstrip()
