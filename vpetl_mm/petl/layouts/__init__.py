"""The place table: one entry per backbone class says where its parts are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from ...errors import UserError
from .entry import transformer
from .layout import Layout
from .open_clip import OPEN_CLIP
from .openmmlab import OPENMMLAB
from .timm import TIMM
from .torchvision import TORCHVISION
from .transformers import TRANSFORMERS

__all__ = [
    'LAYOUTS',
    'Found',
    'Layout',
    'find',
    'forms',
    'found',
    'host_of',
    'key_of',
    'layout_of',
    'register_layout',
    'transformer',
]

# Keys are <library>.<class>: two libraries have a VisionTransformer.
LAYOUTS: dict[str, Layout | tuple[Layout, ...]] = {**OPENMMLAB, **TIMM, **TRANSFORMERS, **TORCHVISION, **OPEN_CLIP}


def register_layout(backbone: str | type[nn.Module], layout: Layout | tuple[Layout, ...]) -> None:
    """Add a backbone class to the place table, or replace its entry.

    Args:
        backbone: the class, or its key, ``'<package>.<class>'`` by the first part of its module's name, such as
            ``'mypackage.MyViT'``. Classes that inherit from it are found too.
        layout: of :func:`~.layout.transformer`; or several, for versions that name parts otherwise, of which the
            first that finds q, k and v in a model fits.

    Raises:
        UserError: when ``backbone`` or ``layout`` is something else.
    """
    key = key_of(backbone) if isinstance(backbone, type) else backbone
    if not isinstance(key, str) or not re.fullmatch(r'\w+\.\w+', key):
        raise UserError(f'A layout is registered for a class, or for "<package>.<class>"; got {backbone!r:.80}.')
    several = layout if isinstance(layout, tuple) else (layout,)
    if not several or not all(isinstance(part, Layout) for part in several):
        raise UserError(
            f'The layout of {key} is what transformer(...) returns, or several of them; got {layout!r:.80}.'
        )
    LAYOUTS[key] = layout


def key_of(cls: type) -> str:
    """Return what the place table calls a class, such as ``'timm.Eva'``."""
    return f'{cls.__module__.partition(".")[0]}.{cls.__name__}'


@dataclass(frozen=True)
class Found:
    """A backbone that the place table knows.

    Args:
        key: of the table, such as ``'timm.Eva'``.
        path: where it is in what was given; '' for the module itself.
        layout: its entry, for paths from what was given.
    """

    key: str
    path: str
    layout: Layout


def forms(key: str) -> tuple[Layout, ...]:
    """Return a class's layouts: one, or one for each version of its library that names parts otherwise."""
    entry = LAYOUTS[key]
    return entry if isinstance(entry, tuple) else (entry,)


def find(model: nn.Module) -> Found | None:
    """Return the outermost backbone in ``model`` that the place table knows; None where there is none."""
    for path, module in model.named_modules():
        for cls in type(module).__mro__:
            if (key := key_of(cls)) in LAYOUTS:
                layout = next((f for f in forms(key) if next(f.sites(module, 'qkv'), None)), forms(key)[0])
                return Found(key, path, layout.inside(f'{path}.' if path else ''))
    return None


def found(model: nn.Module) -> Found:
    """Return :func:`find`'s answer; raise :class:`UserError` where there is none."""
    if (answer := find(model)) is None:
        raise UserError(
            f'{key_of(type(model))} is not in the place table, which has: {", ".join(LAYOUTS)}; tools/host.py '
            'proposes an entry, which register_layout adds.'
        )
    return answer


def host_of(backbone: nn.Module) -> str:
    """Return the place table's key of a backbone, such as ``'mmaction.SwinTransformer3D'``, by its base classes too.

    Raises:
        UserError: when the table has none.
    """
    return found(backbone).key


def layout_of(backbone: nn.Module) -> Layout:
    """Return the place table's entry for ``backbone``; raise :class:`UserError` when it has none."""
    return found(backbone).layout
