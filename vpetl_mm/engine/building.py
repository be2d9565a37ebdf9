"""Parts of a config, built one at a time: a library's error becomes a sentence that names the part."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine import Config
from mmengine.registry import Registry, root

from ..config import arguments_of
from ..errors import UserError, did_you_mean, reason, unknown
from .entries import at
from .failures import FULL

# what libraries raise at a wrong value in a config
WRONG = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError)
WRONG += (RuntimeError, TypeError, ValueError)
# types of a default, what cannot replace it, and what can
KINDS = (
    ((int, float), (str, dict), 'a number'),
    ((bool,), (str, list, dict), 'True or False'),
    ((str,), (bool, int, float), 'text'),
)


@contextmanager
def naming(cfg: Config, part: str) -> Iterator[None]:
    """Turn a library's error while it builds ``part`` of the config into a sentence that names both."""
    try:
        yield
    except UserError:
        raise
    except WRONG as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        why = re.sub(' Please check whether the value.*', '', reason(error, 2000))
        if ' ' not in why:  # such as a KeyError's key
            why = f'{type(error).__name__} {error}'.strip()
        if missing := re.match(r'[\'"]?(\S+) is not in the (?:\w+::)?(.+) registry', why):
            why = f'there is no {missing[2]} {missing[1]!r}{nearest(*missing.groups())}'
        raise UserError(f'{cfg.filename or "The config"}: {part} is wrong: {why[:400]}') from error


def nearest(name: str, kind: str) -> str:
    """Return a hint at the nearest name in the registries of a kind, such as ``'hook'``."""
    roots = [r for r in vars(root).values() if isinstance(r, Registry) and r.name == kind]
    names = {n for r in roots for part in (r, *r.children.values()) for n in part.module_dict}
    return f'.{did_you_mean(name, names)}'


@contextmanager
def calling(cfg: Config, part: str, called: Any, given: Mapping[str, Any]) -> Iterator[None]:
    """Check the types of a part's arguments; inside, turn what ``called`` raises into a sentence.

    Numbers, switches and text are checked against the defaults that they replace. An unknown argument is reported
    with those that exist, and the nearest.
    """
    with naming(cfg, part):
        for name, default in arguments_of(called).items():
            for kind, wrong, wanted in KINDS:
                if type(default) in kind and isinstance(given.get(name), wrong):
                    raise UserError(f'{part}.{name} must be {wanted}, got {given[name]!r}.')
        try:
            yield
        except TypeError as error:
            extra = re.match(r"(?:(?:(\w+)\.)?\w+\(\) )?got an unexpected keyword argument '(\w+)'", str(error))
            classes = called.__mro__ if inspect.isclass(called) else ()
            if extra is None or extra[1] not in (None, *(c.__name__ for c in classes)):
                raise
            raise unknown(f'key of {part}', extra[2], arguments_of(called)) from error


def registered(part: str, registry: Registry, entry: Any) -> Any:
    """Return the class that an entry names."""
    if not isinstance(entry, Mapping) or 'type' not in entry:
        raise UserError(f'{part} must be a dict with a type, got {str(entry)[:200]!r}.')
    kind = entry['type']
    with registry.switch_scope_and_registry(None) as scoped:
        found = scoped.get(kind) if isinstance(kind, str) else kind
    if found is None:
        raise UserError(f'{part} is wrong: there is no {registry.name} {kind!r}{nearest(kind, registry.name)}')
    return found


def built(cfg: Config, part: str, registry: Registry, entry: Any, **given: Any) -> Any:
    """Return what ``registry`` builds of an entry; ``given`` are further arguments."""
    with calling(cfg, part, registered(part, registry, entry), entry):
        return registry.build(copy.deepcopy(entry), default_args=given)


def entries_of(part: str, entries: Any) -> list[tuple[str, Any]]:
    """Return the entries of a config's list, or the one that stands alone, each with its name."""
    if isinstance(entries, Mapping):
        return [(part, entries)]
    if not isinstance(entries, (list, tuple)):
        raise UserError(f'{part} must be a list of dicts, got {entries!r}.')
    return [(f'{part}[{i}]', entry) for i, entry in enumerate(entries)]


def with_own_types(cfg: Config) -> Config:
    """Copy the config, and name this project's EMAHook and WandbVisBackend so that no host library's is taken."""
    cfg = copy.deepcopy(cfg)
    for key, name in (('custom_hooks', 'EMAHook'), ('visualizer.vis_backends', 'WandbVisBackend')):
        for entry in of_type(name, at(cfg, key)):
            entry['type'] = f'mmengine.{name}'
    return cfg


def of_type(name: str, entries: Iterable[Any] | None) -> list[Mapping[str, Any]]:
    """Return the entries of a config's list whose type is ``name``, with a library's prefix or without."""
    dicts = [e for e in entries or () if isinstance(e, Mapping)]
    return [e for e in dicts if str(e.get('type')).rpartition('.')[2] == name]
