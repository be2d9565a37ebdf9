"""Classes of modules are exchanged, in place, for cached subclasses; weights and keys stay, and copies are equal.

deepcopy, pickle and torch.compile work: what was exchanged is pickled as the recipe that creates it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ..errors import UserError

NOTES = (
    'first',
    'block',
    'noted',
    'awaited',
    'first_norm',
    'token_grids',
    'grids',
)  # what exchanged modules remember of others


class Exchanged:
    """Base of the classes created here, which are pickled as the recipe that creates them."""

    def __reduce_ex__(self, protocol: int) -> tuple:
        return _blank, (_recipe(type(self)),), self.__getstate__()


def exchanged(name: str, recipe: tuple, **members: Any) -> type[nn.Module]:
    """Return a subclass of a module's class.

    Args:
        name: of the subclass.
        recipe: an importable function that creates it, and its arguments: the module's class, then names.
        members: of the subclass; ``forward`` is given the module's class behind ``self``, as several may be stacked.
    """
    plain = recipe[1]
    if 'forward' in members:
        members['forward'] = _forward_of(plain, members['forward'])
    bases = (plain,) if issubclass(plain, Exchanged) else (Exchanged, plain)
    return type(name, bases, dict(members, plain=plain, recipe=recipe, __module__=plain.__module__))


def _forward_of(plain: type[nn.Module], own: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return own(self, plain, *args, **kwargs)

    forward.__signature__ = inspect.signature(plain.forward)
    return forward


def _recipe(cls: type) -> Any:
    """Return the recipe of a class created here, down to a class that can be imported, which is returned as it is."""
    if not issubclass(cls, Exchanged):
        return cls
    make, plain, *names = cls.recipe
    return make, _recipe(plain), *names


def _made(recipe: Any) -> type:
    if isinstance(recipe, type):
        return recipe
    make, plain, *names = recipe
    return make(_made(plain), *names)


def _blank(recipe: Any) -> nn.Module:
    cls = _made(recipe)
    return cls.__new__(cls)


def exchange(module: nn.Module, make: Callable[..., type[nn.Module]], *args: Any) -> None:
    """Exchange the class of ``module`` for ``make(class, *args)``, unless that has been done."""
    recipe = _recipe(type(module))
    while not isinstance(recipe, type):
        if recipe[0] is make:
            return
        recipe = recipe[1]
    become(module, make(type(module), *args))


def exchange_innermost(module: nn.Module, make: Callable[..., type[nn.Module]], *args: Any) -> None:
    """Exchange as :func:`exchange` does, but under every other exchanged class of ``module``."""
    recipe = _without(_recipe(type(module)), make)

    def within(recipe: Any) -> Any:
        return (make, recipe, *args) if isinstance(recipe, type) else (recipe[0], within(recipe[1]), *recipe[2:])

    become(module, _made(within(recipe)))


def exchange_back(module: nn.Module, make: Callable[..., type[nn.Module]]) -> None:
    """Take the class that ``make`` has created out of those that ``module`` has become."""
    become(module, _made(_without(_recipe(type(module)), make)))


def _without(recipe: Any, make: Callable[..., type[nn.Module]]) -> Any:
    if isinstance(recipe, type):
        return recipe
    return recipe[1] if recipe[0] is make else (recipe[0], _without(recipe[1], make), *recipe[2:])


def become(module: nn.Module, cls: type[nn.Module]) -> None:
    """Set the class of ``module``, whose ``forward`` is then that of ``cls``.

    Raises:
        UserError: where something has set another ``forward`` on the module itself, which would go past the class.
    """
    own = module.__dict__.get('forward')
    calls_class = isinstance(own, partial) and own.args and own.args[0] is module  # as with_cp's does
    if own is not None and not calls_class:
        ours = [vars(c)['forward'] for c in type(module).__mro__ if 'forward' in vars(c)]
        if getattr(own, '__self__', None) is not module or own.__func__ not in ours:
            raise UserError(
                f'{plain_class(module).__name__} has a forward that was set on it (by accelerate, with device_map?): '
                'deltas would be passed by; adapt the model before.'
            )
        del module.forward  # transformers 4 leaves the class's own there when it has recorded hidden states
    module.__class__ = cls


def exchange_plain(module: nn.Module, cls: type[nn.Module]) -> None:
    """Exchange the class that ``module`` had before it became a host for ``cls``, a subclass of it."""
    recipe = _recipe(type(module))

    def within(recipe: Any) -> Any:
        return cls if isinstance(recipe, type) else (recipe[0], within(recipe[1]), *recipe[2:])

    become(module, _made(within(recipe)))


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that ``module`` had before it became a host."""
    recipe = _recipe(type(module))
    while not isinstance(recipe, type):
        recipe = recipe[1]
    return recipe


def restore(module: nn.Module) -> None:
    """Give ``module`` and all modules in it, none of which has deltas, the classes back that can be imported."""
    for part in module.modules():
        if 'was_fused' in part.__dict__:
            part.fused_attn = part.__dict__.pop('was_fused')
        if isinstance(part, Exchanged):
            become(part, plain_class(part))
            for name in NOTES:
                part.__dict__.pop(name, None)
