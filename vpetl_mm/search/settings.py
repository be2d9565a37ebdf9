"""What a search is: its config, spaces and metric, kept in its folder, so that it goes on as it began."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine import Config

from ..config import load_config
from ..engine.experiment import Options, prepare
from ..engine.record import dotted_items, json_safe
from ..errors import UserError, reason, shortened
from ..files import from_json, read_start, written_whole
from .space import Space, parse_spaces

FILE = 'search.json'
FORMAT = 'vpetl_mm search 1'
JOURNAL = 'journal.log'
MOST = {FILE: 10**6, JOURNAL: 10**9}  # bytes
SAMPLERS = ('tpe', 'grid', 'random')
PRUNERS = ('hyperband', 'none')
WORK_DIR = 'work_dirs/tune'
NAMES = dict(spaces='space', options='set of options', fraction='share of held-out data')  # in messages


@dataclass(frozen=True)
class Search:
    """A search for settings of one config.

    Args:
        config: the experiment's file.
        folder: where everything of the search goes.
        spaces: dotted key -> space, as text.
        options: ``--cfg-options`` of every run.
        metric: the score on held-out data to be made large, such as ``'acc/top1'``.
        sampler: one of :data:`SAMPLERS`.
        pruner: one of :data:`PRUNERS`; with ``'none'`` every trial is trained to its end.
        fraction: of the training list that is held out; None where the config validates on a list of its own.
        digest: of the config's content.
    """

    config: str
    folder: str
    spaces: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    metric: str = 'acc/top1'
    sampler: str = 'tpe'
    pruner: str = 'hyperband'
    fraction: float | None = None
    digest: str = ''

    @property
    def name(self) -> str:
        """The experiment's name."""
        return Path(self.config).stem

    def parsed(self) -> dict[str, Space]:
        """Return the spaces."""
        return parse_spaces(self.spaces)

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial's run."""
        return Path(self.folder, f'trial_{number:03}')

    def run(self, folder: Path, chosen: Mapping[str, Any], seed: int | None = None) -> Config:
        """Return the config of a run on held-out data, which goes on from the last epoch that its folder has.

        Args:
            folder: its work dir.
            chosen: the settings under trial.
            seed: the run's. Defaults to None, the config's own.
        """
        held = {} if self.fraction is None else {'holdout.fraction': self.fraction}
        options = {**self.options, **held, 'train_cfg.val_begin': 1, 'train_cfg.val_interval': 1, **chosen}
        if seed is not None:
            options['randomness.seed'] = seed
        goes_on = any(folder.glob('epoch_*.pth'))
        resume = 'auto' if goes_on else None
        return prepare(self.config, Options(str(folder), resume, cfg_options=options, overwrite=not goes_on))


def need_optuna() -> None:
    """Raise :class:`UserError` where Optuna is not installed."""
    if find_spec('optuna') is None:
        raise UserError('The search needs Optuna, which is not installed: pip install optuna.')


def digest_of(cfg: Config) -> str:
    """Return a hash of what a config says, without its spaces."""
    content = {key: value for key, value in cfg.to_dict().items() if key != 'search'}
    return hashlib.sha256(json.dumps(json_safe(content), sort_keys=True).encode()).hexdigest()


def spaces_of(cfg: Config) -> dict[str, Any]:
    """Return the config's own ``search``, by dotted key; nested dicts are dotted keys as well."""
    given = cfg.get('search') or {}
    if not isinstance(given, Mapping):
        raise UserError(f'search must be a dict of setting and space in {cfg.filename}, got {given!r}.')
    return dict(dotted_items(given))


def check_file(file: Path) -> None:
    """Raise :class:`UserError` where a search's own file is a link, a pipe, a folder, or larger than any could be."""
    if not os.path.lexists(file):
        return
    # what is written into a link goes to the file that it names, and a device is read without end
    if file.is_symlink() or not file.is_file():
        raise UserError(f'{file} is not an ordinary file: remove it, or search in another --work-dir.')
    if (size := file.stat().st_size) > MOST[file.name]:
        raise UserError(f'{file} has {size / 1e6:,.0f} MB, which no search writes: search in another --work-dir.')


def read_search(folder: str | Path) -> Search | None:
    """Return the search of a folder; None if it has none.

    Raises:
        UserError: when its file is damaged, or no ordinary one.
    """
    file = Path(folder, FILE)
    check_file(file)
    try:
        content = from_json(read_start(file, MOST[FILE]))
        if not isinstance(content, dict) or content.pop('format', None) != FORMAT:
            raise ValueError(f'its format is not {FORMAT!r}')
        content = dict(pruner=PRUNERS[0]) | content  # older searches do not say it
        if {*content} != {one.name for one in fields(Search)} - {'folder'}:
            raise ValueError('it does not have the settings of a search')
        return Search(**content, folder=str(folder))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f'{file} is damaged ({shortened(reason(error), 200)}): remove the folder, or search in another '
            '--work-dir.'
        ) from error


def check_same(search: Search) -> None:
    """Raise :class:`UserError` if the folder of a search holds another one."""
    check_file(Path(search.folder, JOURNAL))
    there = read_search(search.folder)
    if there is None:
        return
    for name, value in asdict(search).items():
        old = getattr(there, name)
        if name == 'folder' or json_safe(value) == old:
            continue
        what = f'a different {NAMES.get(name, name)}' if name != 'digest' else f'an older content of {search.config}'
        shown = '' if name == 'digest' else f' ({_shown(old)})'
        raise UserError(
            f'{search.folder} holds a search with {what}{shown}: repeat that one, or search in another --work-dir.'
        )


def _shown(value: Any) -> str:
    return ', '.join(f'{k}={v}' for k, v in value.items()) if isinstance(value, dict) else str(value)


def write_search(search: Search) -> None:
    """Write the search into its folder, whole."""
    check_file(Path(search.folder, FILE))
    Path(search.folder).mkdir(parents=True, exist_ok=True)
    content = {k: v for k, v in asdict(search).items() if k != 'folder'}
    with written_whole(Path(search.folder, FILE)) as partial:
        partial.write_text(json.dumps(dict(format=FORMAT, **json_safe(content)), indent=1) + '\n', encoding='utf-8')


def config_of(search: Search) -> Config:
    """Return the config with the options of every run, as it stands without any chosen setting."""
    return load_config(search.config, search.options)
