"""What the bundle of a plan says about itself, as lines for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import UserError, tellable
from ...files import size_of
from ..bundle.opening import PLAIN, opened_bundle
from .bundle import read_about

SIZES = {'d_bottle': 'd_bottle', 'rank': 'rank', 'num_tokens': 'tokens'}


def is_of_plan(file: str | Path) -> bool:
    """Return whether a file is the bundle of a plan, of any format."""
    try:
        with opened_bundle(Path(file), PLAIN):
            return True
    except UserError:
        return False


def info_of_plan(file: str | Path) -> str:
    """Return the description of the bundle of a plan, a line for each fact, from its header alone.

    Raises:
        UserError: as :func:`~.bundle.read_about`.
    """
    about = read_about(file)
    share = 100 * about.trainable / max(about.total, 1)
    tuned = [tuned_as(name, delta) for name, delta in about.deltas.items()]
    if about.spt is not None:
        tuned.append('SPT')
    facts = {
        'name': about.name,
        'file': f'{file}, {size_of(file)}',
        'model': f'{about.model} ({about.host}), in plain PyTorch',
        'classes': 'without names' if about.classes is None else _classes(about.classes),
        'tuned': ', '.join([*tuned, *about.train]),
        'parameters': f'{about.trainable:,} trained of {about.total:,} ({share:.2f} %)',
        'needs': f'the frozen weights of SHA-256 {about.frozen_sha256}',
        'license': about.license,
        'made': f'{about.created} with ' + ', '.join(f'{k} {v}' for k, v in about.versions.items()),
        'loads': 'with vpetl_mm.use.plain.adapt_from(model, file)',
    }
    width = max(map(len, facts))
    return '\n'.join(f'{name:{width}}  {tellable(value)}' for name, value in facts.items())


def tuned_as(name: str, delta: dict[str, Any]) -> str:
    """Return a delta's name, type, place and size as text."""
    sizes = [f'{word} {delta[key]}' for key, word in SIZES.items() if delta.get(key) is not None]
    places = delta.get('at') or []
    at = [f'at {places if isinstance(places, str) else " and ".join(map(str, places))}'] if places else []
    return f'{name} ({", ".join([str(delta.get("type")), *at, *sizes])})'


def _classes(classes: list[str]) -> str:
    return f'{len(classes)}: {", ".join(classes[:3])}{", ..." if len(classes) > 3 else ""}'
