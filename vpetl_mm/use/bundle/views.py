"""The views of an input that are classified: those of the test, or a single one."""

from __future__ import annotations

from typing import Any

from mmengine.registry import TRANSFORMS, DefaultScope

from ...errors import UserError, reason, unknown
from ...models.build import WRONG
from .allowed import CROPS, views_of
from .bundle import About

VIEWS = ('test', 'fast')


def pipeline_of(about: About, views: str = 'test') -> list[dict[str, Any]]:
    """Return the steps that turn a file into the model's input.

    Args:
        about: the bundle's header.
        views: ``'test'`` (default), all views of the test pipeline, whose scores are averaged; ``'fast'``, one clip
            and one central crop.

    Raises:
        UserError: for other ``views``.
    """
    if views not in VIEWS:
        raise unknown('views', views, VIEWS)
    steps = [dict(step) for step in about.pipeline]
    if views == 'fast':
        for step in steps:
            if 'num_clips' in step:
                step['num_clips'] = 1
            if step['type'] in CROPS:
                step['type'] = 'CenterCrop'
    return steps


def number_of_views(about: About, views: str = 'test') -> int:
    """Return how many views of one input are classified."""
    return views_of(pipeline_of(about, views))


def check_steps(about: About) -> None:
    """Raise :class:`UserError` if a step of the test pipeline cannot be built."""
    with DefaultScope.overwrite_default_scope(about.default_scope):
        for step in about.pipeline:
            try:
                TRANSFORMS.build(dict(step))
            except WRONG as error:
                raise UserError(f'{step["type"]} of its pipeline is wrong: {reason(error)}') from error
