"""Parameters of many experiments at once."""

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

_counted: dict[str, int] = {}  # models of one shape are counted once a process
Item = TypeVar('Item')


def count_params(configs: Sequence[str], progress: bool = False) -> list[dict[str, Any]]:
    """Count each config's parameters on the meta device.

    Args:
        configs: config files.
        progress: show a progress bar, on a terminal.

    Returns:
        ``dict(config=..., trainable=..., total=..., by={group: n})`` for each.

    Raises:
        UserError: naming the config that cannot be built.
    """
    rows = []
    for config in track(list(configs), 'counting', transient=True, disable=not progress):
        try:
            model = build_model(config, meta=True)
        except UserError as error:
            raise UserError(f'{config}: {error}') from error
        rows.append(dict(config=str(config), **model.plan.count()))
    return rows


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The counts as a table for the terminal."""
    width = max(len(r['config']) for r in rows)
    lines = [f'{"config":{width}}  {"trainable":>11}  {"total":>11}  {"share":>7}  by group']
    for row in rows:
        share = f'{100 * row["trainable"] / row["total"]:.2f}%'
        by = ', '.join(f'{k} {v:,}' for k, v in row['by'].items())
        lines.append(f'{row["config"]:{width}}  {row["trainable"]:>11,}  {row["total"]:>11,}  {share:>7}  {by}')
    return '\n'.join(lines)


def trainable(names: Iterable[str], configs: Path = Path('configs'), progress: bool = False) -> dict[str, int]:
    """The trainable parameters of experiments, counted on the meta device.

    Those of SPT are left out: what it trains is in a file that is made from the data.

    Args:
        names: config names.
        configs: their folder.
        progress: show a progress bar, on a terminal.

    Raises:
        UserError: naming a config that is missing or cannot be built.
    """
    counts = {}
    for name in tracked(names, 'counting parameters') if progress else names:
        file = configs / f'{name}.py'
        model = load_config(file).model
        if trains_by_budget(model):
            continue
        shape = shape_of(model)
        if shape not in _counted:
            _counted[shape] = count_params([str(file)])[0]['trainable']
        counts[name] = _counted[shape]
    return counts


def shape_of(model: ConfigDict) -> str:
    """What of a model config decides how many parameters there are: all but which weights are loaded."""
    return json.dumps({k: v for k, v in model.to_dict().items() if k != 'base'}, sort_keys=True, default=str)


def tracked(items: Iterable[Item], what: str) -> Iterable[Item]:
    """``items`` with a progress bar, on a terminal."""
    console = Console(stderr=True)  # what is shown may be redirected to a file
    return track(list(items), what, transient=True, disable=not console.is_terminal, console=console)


def trains_by_budget(model: Mapping[str, Any]) -> bool:
    """Whether a config's model is tuned by SPT, whose parameters a file of its own decides."""
    return bool((model.get('petl') or {}).get('spt'))
