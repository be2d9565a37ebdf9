"""Finds a backbone in a checkpoint: the dicts that it is nested in, and the prefix of its keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .tensors import StateDict, Weights

# inserted into names by torch.compile, FSDP and activation checkpointing
INSERTED = re.compile(r'(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.')
_plain = partial(INSERTED.sub, '')
# the attention of a block, without its deltas; group 1 is the prefix of the blocks
BLOCK = re.compile(r'((?:[^.]+\.)*?)(?:stages|layers|blocks)\.\d+\.(?:blocks\.\d+\.)?attn\.(?!.*\.deltas\.)')
PRETRAINING = re.compile(r'(.*\.)?(decoder|momentum_encoder)(\.|$)')
COPY = re.compile(r'ema|teacher|student|averag|swa')


@dataclass(frozen=True)
class Model:
    """A backbone in a checkpoint.

    Args:
        inside: the keys of the dicts that it is nested in, the outermost first.
        prefix: of its keys there, :data:`INSERTED` removed.
    """

    inside: tuple[str, ...] = ()
    prefix: str = ''

    @property
    def name(self) -> str:
        """``inside`` and ``prefix`` joined by dots."""
        return '.'.join((*self.inside, self.prefix)).strip('.')


def models_in(content: Any) -> list[Model]:
    """Find the backbones in a checkpoint, each by the attention of its blocks."""
    found, seen, queue = [], {id(content)}, [((), content)]
    for inside, value in queue:  # it grows meanwhile
        state = tensors_in(value)
        prefixes = dict.fromkeys(m[1] for m in map(BLOCK.match, map(_plain, state)) if m)
        found += [Model(inside, p) for p in prefixes if not PRETRAINING.match(p)]
        for key, part in value.items() if isinstance(value, dict) else ():
            if isinstance(key, str) and isinstance(part, (dict, nn.Module)) and id(part) not in seen:
                seen.add(id(part))
                queue.append(((*inside, key), part))
    return found


def tensors_in(value: Any) -> StateDict:
    """Return the tensors directly inside a dict or a module."""
    items = (value.state_dict() if isinstance(value, nn.Module) else value if isinstance(value, dict) else {}).items()
    return {k: v for k, v in items if isinstance(k, str) and isinstance(v, Tensor)}


def unwrap(weights: Weights, model: Model, others: Iterable[Model], only: bool = False) -> None:
    """Remove the prefix of ``model`` from every name, or as many of its parts as the name has.

    Args:
        weights: all tensors of the dict that ``model`` is in.
        model: to extract.
        others: further models in the file, which are dropped.
        only: also drop tensors without the prefix, such as a head. Defaults to False.
    """
    weights.rename(_plain)
    own = re.escape(model.prefix)
    for prefix in (other.prefix for other in others if other.inside == model.inside):
        around = f'(?!{own})' if model.prefix.startswith(prefix) else ''
        weights.drop(around + re.escape(prefix), 'another model of the file')
    if only:
        weights.drop(f'(?!{own})', 'not of the backbone')
    weights.drop('(n_averaged|steps)$', 'number of averaged models')
    weights.rename(lambda name: _without(name, model.prefix))


def _without(name: str, prefix: str) -> str:
    for part in re.findall(r'[^.]+\.', prefix):
        if not name.startswith(part):
            break
        name = name.removeprefix(part)
    return name


def chosen(models: list[Model], part: str | None) -> Model | None:
    """Return the model that ``part`` names, the only one, or the only one that is no average, teacher or student.

    It is None if there is neither a model nor a ``part``, which is a part of a model's name.

    Raises:
        UserError: when no or several models remain, listing them all.
    """
    if part is None:
        left = models if len(models) < 2 else [m for m in models if not COPY.search(m.name)]
    else:
        left = [m for m in models if f'.{part}.' in f'.{m.name}.']
    if len(left) == 1:
        return left[0]
    names = ', '.join(m.name or 'one at the top' for m in models)
    if part is not None:
        matches = 'several' if left else 'none'
        raise UserError(f'--part {part} matches {matches} of its models: {names or "it has none"}.')
    if models:
        raise UserError(f'it holds several models: {names}; tools/convert_checkpoint.py --part NAME extracts one.')
    return None
