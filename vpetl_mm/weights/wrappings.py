"""What lies around a backbone in a checkpoint: the dicts that it is nested in, and a prefix in front of its keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .tensors import StateDict, Weights

# what torch.compile, FSDP and activation checkpointing put into names
INSERTED = re.compile(r'(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.')
# a block's attention, deltas left out, and what is in front of the blocks
BLOCK = re.compile(r'((?:[^.]+\.)*?)(?:stages|layers|blocks)\.\d+\.(?:blocks\.\d+\.)?attn\.(?!.*\.deltas\.)')
PRETRAINING = re.compile(r'(.*\.)?(decoder|momentum_encoder)(\.|$)')
COPY = re.compile(r'ema|teacher|student|averag|swa')


@dataclass(frozen=True)
class Model:
    """A backbone in a checkpoint.

    Args:
        inside: the keys of the dicts that it is nested in, the outermost first.
        prefix: what is in front of its keys there, :data:`INSERTED` left out.
    """

    inside: tuple[str, ...] = ()
    prefix: str = ''

    @property
    def name(self) -> str:
        """``inside`` and ``prefix``, joined by dots."""
        return '.'.join((*self.inside, self.prefix)).strip('.')


def models_in(content: Any) -> list[Model]:
    """The backbones in what a checkpoint holds, each known by the attention of its blocks."""
    found, seen, queue = [], set(), [((), content)]
    for inside, value in queue:  # which grows
        if id(value) in seen:
            continue
        seen.add(id(value))
        state = tensors_in(value)
        prefixes = dict.fromkeys(m[1] for m in map(BLOCK.match, map(plain_key, state)) if m)
        found += [Model(inside, p) for p in prefixes if not PRETRAINING.match(p)]
        queue += [((*inside, k), v) for k, v in _nested(value)]
    return found


def _nested(value: Any) -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else ()
    return ((k, v) for k, v in items if isinstance(k, str) and isinstance(v, (dict, nn.Module)))


def tensors_in(value: Any) -> StateDict:
    """The tensors right inside a dict or a module."""
    items = (value.state_dict() if isinstance(value, nn.Module) else value if isinstance(value, dict) else {}).items()
    return {k: v for k, v in items if isinstance(k, str) and isinstance(v, Tensor)}


def plain_key(key: str) -> str:
    """A key without what torch put into it."""
    return INSERTED.sub('', key)


def unwrap(weights: Weights, model: Model, others: Iterable[Model], only: bool = False) -> None:
    """Take the prefix of ``model`` off every name, or as many of its parts as the name has.

    Args:
        weights: the tensors that lie beside each other where ``model`` is.
        model: what is wanted.
        others: further models in the file, which are dropped.
        only: also drop what does not have the prefix, such as a head.
    """
    weights.rename(plain_key)
    own = re.escape(model.prefix)
    for prefix in (other.prefix for other in others if other.inside == model.inside):
        around = f'(?!{own})' if model.prefix.startswith(prefix) else ''
        weights.drop(around + re.escape(prefix), 'another model of the file')
    if only:
        weights.drop(f'(?!{own})', 'not of the backbone')
    weights.drop('(n_averaged|steps)$', 'how many models are averaged')
    weights.rename(lambda name: _without(name, model.prefix))


def _without(name: str, prefix: str) -> str:
    for part in re.findall(r'[^.]+\.', prefix):
        if not name.startswith(part):
            break
        name = name.removeprefix(part)
    return name


def chosen(models: list[Model], part: str | None) -> Model | None:
    """The model that ``part`` names, the only one, or the only one that is no average, teacher or student.

    Args:
        models: what there is.
        part: a part of a model's name; None where the user named none.

    Returns:
        None where there is no model and no ``part``.

    Raises:
        UserError: where that leaves none or several; it lists them.
    """
    if part is None:
        left = models if len(models) < 2 else [m for m in models if not COPY.search(m.name)]
    else:
        left = [m for m in models if f'.{part}.' in f'.{m.name}.']
    if len(left) == 1:
        return left[0]
    names = ', '.join(m.name or 'one at the top' for m in models)
    if part is not None:
        raise UserError(
            f'--part {part} names {"several" if left else "none"} of its models: {names or "it has none"}.'
        )
    if models:
        raise UserError(f'it holds several models: {names}; tools/convert_checkpoint.py --part NAME takes one.')
    return None
