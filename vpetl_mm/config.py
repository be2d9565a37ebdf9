"""Configs, read with errors that say what to do."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine import Config

from vpetl_cli.shipped import find_config, leaf_of

from .errors import UserError, unknown

# top-level keys that a config may lack
OPTIONAL = (
    'activation_checkpointing',
    'auto_scale_lr',
    'cache_features',
    'compile_backbone',
    'custom_hooks',
    'find_unused_parameters',
    'load_from',
    'model_wrapper_cfg',
    'randomness',
)


def load_config(
    config: str | Path | Config | Mapping[str, Any], cfg_options: Mapping[str, Any] | None = None
) -> Config:
    """Return a new mmengine Config, with ``cfg_options`` merged in.

    Args:
        config: a file's path, the name of a shipped experiment, a Config or a dict.
        cfg_options: dotted keys and their values.

    Raises:
        UserError: when the file does not exist (with the nearest names) or cannot be read as a config.
    """
    if isinstance(config, (str, Path)):
        cfg = _from_file(find_config(config))
    elif isinstance(config, Config):
        cfg = config.copy()
    else:
        cfg = Config(dict(config))
    if cfg_options:
        for key in {k.split('.')[0] for k in cfg_options} - {*cfg, *OPTIONAL}:
            raise unknown('key in --cfg-options', key, [*cfg, *OPTIONAL])
        try:
            cfg.merge_from_dict(dict(cfg_options))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f'--cfg-options cannot be merged into {_name(cfg)}: {error}.') from error
    if 'model' not in cfg:
        raise UserError(f'{_name(cfg)} has no model: it is part of a config, not an experiment.')
    return cfg


def _name(cfg: Config) -> str:
    return cfg.filename or 'the config'


def _from_file(path: Path) -> Config:
    """Read a config, that of a VTAB-1k experiment from its leaf with the words of its name filled in."""
    stem, named = (path.stem, {}) if path.is_file() else leaf_of(path.stem)
    leaf = path.with_stem(stem)
    try:
        cfg = Config.fromfile(leaf)
    except Exception as error:
        raise UserError(f'The config {leaf} cannot be read: {type(error).__name__}: {error}') from error
    blanks: dict[str, Any] = {}
    for word in ('task', 'pretrain'):
        key = f'vtab_{word}'
        chosen, table = named.get(word, cfg.pop(key, None)), cfg.pop(f'{key}s', None)
        if table is None or 'model' not in cfg:
            continue
        if chosen is None:
            raise UserError(
                f'{path} has no {key}: name an experiment, such as vit_lora_vtabdtd_r8_in21k, or set {key} in a '
                f'config that inherits it; valid: {", ".join(table)}.'
            )
        if chosen not in table:
            raise unknown(f'{key} in {path}', chosen, table)
        blanks |= {word: chosen, **table[chosen]}
    return Config(_replaced(cfg.to_dict(), blanks), cfg_text=cfg.text, filename=str(path)) if blanks else cfg


def _replaced(value: Any, words: Mapping[str, Any]) -> Any:
    """Return a config's value with ``{word}`` replaced, also inside a longer string."""
    if isinstance(value, dict):
        return {k: _replaced(v, words) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(v, words) for v in value)
    if not isinstance(value, str):
        return value
    for word, by in words.items():
        if value == f'{{{word}}}':
            return by
        value = value.replace(f'{{{word}}}', str(by))
    return value


def arguments_of(called: Any) -> dict[str, Any]:
    """Return the arguments that a config's entry may have, with their defaults.

    Args:
        called: a function, or a class; arguments of its ancestors count as far as ``**kwargs`` reach them.
    """
    arguments: dict[str, Any] = {}
    classes = called.__mro__ if inspect.isclass(called) else ()
    for function in [vars(c)['__init__'] for c in classes if '__init__' in vars(c)] or [called]:
        parameters = inspect.signature(function).parameters.values()
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != 'self']
        arguments = {p.name: p.default for p in named} | arguments
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return arguments
