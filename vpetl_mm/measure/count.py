"""Count the parameters of experiments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mmengine import ConfigDict
from rich.console import Console
from rich.progress import track

from ..config import load_config
from ..errors import UserError
from ..models.build import build_model

_counted: dict[str, int] = {}  # by shape: many experiments share one
Item = TypeVar('Item')


def count_params(configs: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Count each config's parameters on the meta device, with a progress bar on a terminal.

    Returns:
        ``dict(config=..., trainable=..., total=..., by={group: n})`` for each config.

    Raises:
        UserError: naming the config that cannot be built.
    """
    return [dict(config=str(config), **_count(config)) for config in tracked(configs, 'counting parameters')]


def _count(config: str | Path) -> dict[str, Any]:
    try:
        return build_model(config, meta=True).plan.count()
    except UserError as error:
        raise UserError(f'{config}: {error}') from error


def count_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the result of :func:`count_params` as a table for the terminal."""
    width = max(len(r['config']) for r in rows)
    lines = [f'{"config":{width}}  {"trainable":>11}  {"total":>11}  {"share":>7}  by group']
    for row in rows:
        share = f'{100 * row["trainable"] / row["total"]:.2f}%'
        by = ', '.join(f'{k} {v:,}' for k, v in row['by'].items())
        lines.append(f'{row["config"]:{width}}  {row["trainable"]:>11,}  {row["total"]:>11,}  {share:>7}  {by}')
    return '\n'.join(lines)


def trainable(names: Iterable[str], configs: Path = Path('configs')) -> dict[str, int]:
    """Count the trainable parameters of experiments on the meta device, with a progress bar on a terminal.

    SPT's are left out: a file made from the data decides what it trains.

    Raises:
        UserError: naming a config that is missing or cannot be built.
    """
    counts = {}
    for name in tracked(names, 'counting parameters'):
        file = configs / f'{name}.py'
        model = load_config(file).model
        if trains_by_budget(model):
            continue
        shape = shape_of(model)
        if shape not in _counted:
            _counted[shape] = _count(file)['trainable']
        counts[name] = _counted[shape]
    return counts


def shape_of(model: ConfigDict) -> str:
    """Return what decides a model's parameter count: its config without the weights to load."""
    return json.dumps({k: v for k, v in model.to_dict().items() if k != 'base'}, sort_keys=True, default=str)


def tracked(items: Iterable[Item], what: str) -> Iterable[Item]:
    """Iterate over ``items`` with a progress bar on stderr where that is a terminal, as stdout may go to a file."""
    console = Console(stderr=True)
    return track(list(items), what, transient=True, disable=not console.is_terminal, console=console)


def trains_by_budget(model: Mapping[str, Any]) -> bool:
    """Return whether SPT tunes a config's model, so that a file decides what trains."""
    return bool((model.get('petl') or {}).get('spt'))
