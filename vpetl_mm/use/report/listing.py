"""The settings of a run, those that make the experiment apart from the rest."""

from __future__ import annotations

import re
from itertools import chain
from typing import NamedTuple

from ...engine.record import dotted_items
from ...engine.settings import dotted, leaves
from ...errors import shortened, tellable
from .run import Tested

MOST, LONGEST = 500, 300  # settings, and characters of a value
OWN = (  # in this order
    r'model\.petl\..+',
    r'model\.base(\..+)?',
    r'model\.(?!data_preprocessor).+|num_classes',
    r'train_dataloader\.(batch_size|(dataset\.)+(type|ann_file|data_root|split))',
    r'optim_wrapper\..+|auto_scale_lr\..+',
    r'param_scheduler(\..+)?',
    r'(train_cfg|holdout|randomness|custom_hooks|cache_features|compile_backbone|activation_checkpointing)(\..+)?',
)
# what stands elsewhere too, or says nothing
LEFT_OUT = re.compile(
    r'(petl|given_options|experiment_name|custom_imports|console|resume|load_from|dataset_type|metainfo|vis_backends'
    r'|(train|val|test)_pipeline)(\..+)?'
)


class ListedSettings(NamedTuple):
    """Settings and their values as text: those of the command line, the experiment's own, and the rest."""

    given: list[tuple[str, str]]
    own: list[tuple[str, str]]
    other: list[tuple[str, str]]


def own_and_other(tested: Tested) -> ListedSettings:
    """Return the settings that the run trained with; without its log, those of the test."""
    own: list[list[tuple[str, str]]] = [[] for _ in OWN]
    other = []
    for keys, value in leaves(dict(tested.training or tested.testing)):
        name = dotted(keys)[:200]
        place = next((k for k, pattern in enumerate(OWN) if re.fullmatch(pattern, name)), None)
        if not LEFT_OUT.fullmatch(name):
            (other if place is None else own[place]).append((name, shortened(repr(value), LONGEST)))
    given = [(tellable(k), shortened(repr(v), LONGEST)) for k, v in dotted_items(tested.record.options)]
    return ListedSettings(given[:MOST], [*chain(*own)][:MOST], other[:MOST])
