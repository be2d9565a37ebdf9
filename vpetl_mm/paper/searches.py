"""What searches for a learning rate found, from the tables that tools/tune.py leaves."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError, reason
from ..files import from_json, read_start

TABLE, ABOUT, MOST = 'search.csv', 'search.json', 10**6  # of a search's folder, and the most bytes that are read
RATE, FACTOR = 'optim_wrapper.optimizer.lr', 'optim_wrapper.paramwise_cfg.groups.{}.lr_mult'
TOP1, ENDED = 'acc/top1', ('done', 'failed')  # a column, and the states of a trial that has ended
# how few-shot transfer is searched (docs/few_shot.md): 10 epochs on four fifths of the images, every trial to its end
EPOCHS = {'train_cfg.max_epochs': 10, 'param_scheduler.1.end': 10, 'param_scheduler.1.T_max': 8}
ALIKE = dict(metric=TOP1, pruner='none', fraction=0.2)
NEUTRAL = 'train_cfg.val_interval'


def found_by(search: Path, key: str) -> dict[float, float | None]:
    """Return value of ``key`` -> top-1 on held-out data, in a search for it alone; None for a trial that failed.

    A search of another kind, or one that does not exist, has found nothing.

    Raises:
        UserError: for a folder whose files are corrupt.
    """
    file = search / TABLE
    if not file.is_file() or not _counts(search / ABOUT, key):
        return {}
    try:
        rows = csv.DictReader(read_start(file, MOST).splitlines())
        ended = {float(r[key]): float(r[TOP1]) if r['state'] == 'done' else None for r in rows if r['state'] in ENDED}
        if not all(0 < value < 1000 and (top1 is None or 0 <= top1 <= 100) for value, top1 in ended.items()):
            raise ValueError('a value or an accuracy is impossible')
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f'{file} is corrupt ({reason(error)}): tools/tune.py writes it again.') from error
    return dict(sorted(ended.items()))


def _counts(about: Path, key: str) -> bool:
    """Return whether a search is for ``key`` alone, and by the epochs and images of the others."""
    try:
        said = from_json(read_start(about, MOST))
        options = {k: v for k, v in said['options'].items() if k != NEUTRAL}
        return [*said['spaces']] == [key] and options == EPOCHS and ALIKE.items() <= said.items()
    except OSError:
        return False
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{about} is corrupt ({reason(error)}).') from error


def with_more(known: Mapping[float, float | None], found: Mapping[float, float | None]) -> dict[float, float | None]:
    """Return what two searches found; a failure does not replace a score."""
    new = {value: top1 for value, top1 in found.items() if top1 is not None or value not in known}
    return dict(sorted({**known, **new}.items()))
