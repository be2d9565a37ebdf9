"""The place table: one entry per backbone class says where its parts are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...errors import UserError
from .layout import Layout
from .open_clip import OPEN_CLIP
from .openmmlab import OPENMMLAB
from .timm import TIMM
from .torchvision import TORCHVISION
from .transformers import TRANSFORMERS

# Keys are <library>.<class>: two libraries have a VisionTransformer.
LAYOUTS: dict[str, Layout | tuple[Layout, ...]] = {**OPENMMLAB, **TIMM, **TRANSFORMERS, **TORCHVISION, **OPEN_CLIP}


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
            key = f'{cls.__module__.partition(".")[0]}.{cls.__name__}'
            if key in LAYOUTS:
                layout = next((f for f in forms(key) if next(f.sites(module, 'qkv'), None)), forms(key)[0])
                return Found(key, path, layout.inside(f'{path}.' if path else ''))
    return None


def found(model: nn.Module) -> Found:
    """Return :func:`find`'s answer; raise :class:`UserError` where there is none."""
    if (answer := find(model)) is None:
        raise UserError(f'{type(model).__name__} is not in the place table; it has: {", ".join(LAYOUTS)}.')
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
