"""Parameters of many experiments at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.progress import track

from ..errors import UserError
from ..models.build import build_model


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
