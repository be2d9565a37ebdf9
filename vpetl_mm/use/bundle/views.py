"""The views of an input that are classified: those of the test, or a single one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.registry import TRANSFORMS, DefaultScope

from ...errors import UserError, reason, unknown
from ...models.build import WRONG
from ...preparation.found import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .allowed import CROPS, views_of
from .bundle import About

VIEWS = ('test', 'fast')
# suffixes of the other kind; a video bundle reads moving pictures too, if they are named
REFUSED = {'video': IMAGE_SUFFIXES - {'.gif', '.avif'}, 'image': VIDEO_SUFFIXES}


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


def from_files(about: About) -> list[dict[str, Any]]:
    """Return the test pipeline, with a step in front that reads an image if the data set's images were arrays.

    Raises:
        UserError: when its first step takes neither a file nor an array of known colours.
    """
    steps = [dict(step) for step in about.pipeline]
    if about.is_video or steps[0]['type'] == 'LoadImageFromFile':
        return steps
    if steps[0]['type'] != 'NumpyToPIL':
        raise UserError(f'The bundle {about.name} cannot read files: its pipeline begins with {steps[0]["type"]}.')
    steps[0]['to_rgb'] = True  # what is read is BGR
    return [dict(type='LoadImageFromFile', imdecode_backend='pillow'), *steps]


def number_of_views(about: About, views: str = 'test') -> int:
    """Return how many views of one input are classified."""
    return views_of(pipeline_of(about, views))


def check_kind(about: About, file: str | Path) -> None:
    """Raise :class:`UserError` for an image in front of a bundle for videos, and the reverse, by the suffix."""
    if Path(file).suffix.lower() in REFUSED[about.media]:
        kind = 'an image' if about.is_video else 'a video'
        raise UserError(f'{file} is {kind}, and {about.name} classifies {about.media}s.')


def check_steps(about: About) -> None:
    """Raise :class:`UserError` if a step of the test pipeline cannot be built."""
    with DefaultScope.overwrite_default_scope(about.default_scope):
        for step in about.pipeline:
            try:
                TRANSFORMS.build(dict(step))
            except WRONG as error:
                raise UserError(f'{step["type"]} of its pipeline is wrong: {reason(error)}') from error
