"""The winner of a search: a config of its own, trained and tested once."""

from __future__ import annotations

import os
import pprint
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmengine import Config

from vpetl_cli.shipped import leaf_of

from ..campaign.claim import claimed, in_use
from ..campaign.job import Job
from ..engine.experiment import Options, prepare, test, train
from ..engine.record import FILE
from ..engine.run_folder import LOCK, remove_run
from ..engine.sensitivity_command import SPT_FILE
from ..errors import UserError
from ..files import written_whole
from .finalists import Finalist
from .settings import Search, config_of, read_search
from .trial import measured

WINNER = 'winner'


def tuned_config(search: Search) -> Path:
    """Return the path of the winner's config."""
    return Path(search.folder, f'{search.name}_tuned.py')


def choose_winner(search: Search, winner: Finalist, trials: int) -> None:
    """Write the winner's config, unless it is there; what another winner has left of its run goes first.

    Raises:
        UserError: when another winner is being trained.
    """
    path, folder, text = tuned_config(search), Path(search.folder, WINNER), winner_text(search, winner, trials)
    if path.is_file() and path.read_text(encoding='utf-8', errors='replace') == text:
        return
    with claimed(folder) as ours:
        if not ours or in_use(folder, (LOCK,)):
            raise UserError(f'{folder} is in use, for the winner of another choice: wait for it, or end it.')
        remove_run(folder)
        (folder / SPT_FILE).unlink(missing_ok=True)
        write_winner(search, winner, trials)


def write_winner(search: Search, winner: Finalist, trials: int) -> Path:
    """Write the winner as a config that inherits the searched one; return its path."""
    path, text = tuned_config(search), winner_text(search, winner, trials)
    with written_whole(path) as partial_file:
        partial_file.write_text(text, encoding='utf-8')
    return path


def winner_text(search: Search, winner: Finalist, trials: int) -> str:
    """Return the winner's config as text."""
    leaf, named = leaf_of(search.name)
    base = Path(search.config).with_stem(leaf).resolve()
    if base.is_relative_to(Path.cwd()) and Path(search.folder).resolve().is_relative_to(Path.cwd()):
        base = Path(os.path.relpath(base, Path(search.folder).resolve()))
    settings = _nested(config_of(search), {**search.options, **winner.chosen})
    entries = {f'vtab_{word}': repr(value) for word, value in named.items()}
    entries |= {key: _written(value) for key, value in settings.items()}
    spread = f' ± {winner.spread:.2f}' if len(winner.values) > 1 else ''
    lines = [
        f'# Trial {winner.number}, the best of {trials} on held-out training data: {search.metric} '
        f'{winner.mean:.2f}{spread} over {len(winner.values)} seed(s).',
        f'_base_ = {str(base)!r}',
        *(f'{key} = {value}' for key, value in entries.items()),
        f'trials = {trials}  # that these settings were chosen from',
    ]
    return '\n'.join(lines) + '\n'


def _nested(cfg: Config, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as nested dicts. A list in which one changes is written whole, as children replace lists."""
    nested: dict[str, Any] = {}
    merged = cfg.copy()
    merged.merge_from_dict(dict(chosen))
    for key in chosen:
        parts, place, source = key.split('.'), nested, merged
        for depth, part in enumerate(parts):
            source = source[part]
            if depth == len(parts) - 1 or isinstance(source, (list, tuple)):
                place[part] = Config(dict(_=source)).to_dict()['_']
                break
            place = place.setdefault(part, {})
    return nested


def _written(value: Any) -> str:
    if isinstance(value, dict) and all(str(key).isidentifier() for key in value):
        return f'dict({", ".join(f"{key}={_written(part)}" for key, part in value.items())})'
    return pprint.pformat(value, width=10**6, sort_dicts=False)


def winner_job(search: Search) -> Job:
    """Return the job that trains and tests the winner."""
    folder = Path(search.folder, WINNER)
    return Job(f'{search.name}, the winner', folder, partial(run_winner, search.folder), (folder / FILE).is_file)


def run_winner(folder: str) -> None:
    """Train the winner's config as it stands, and read the test list, once.

    Raises:
        UserError: as :func:`~vpetl_mm.engine.experiment.train` and :func:`~vpetl_mm.engine.experiment.test`.
    """
    search, place = read_search(folder), Path(folder, WINNER)
    config = tuned_config(search)
    if not _last_adapter(place):
        goes_on = any(place.glob('epoch_[0-9]*.pth'))
        options = Options(str(place), 'auto' if goes_on else None, overwrite=not goes_on)
        train(measured(prepare(config, options)))
    test(measured(prepare(config, Options(str(place)))), _last_adapter(place))


def _last_adapter(folder: Path) -> Path | None:
    """Return what a run wrote at its end, after the last epoch or where it stopped early; None before."""
    files = sorted(folder.glob('adapter_epoch_*.pth'), key=lambda p: int(p.stem.rpartition('_')[2]))
    return files[-1] if files else None
