"""Patches that make the host libraries work with today's torch, each with its reason."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.checkpoint import checkpoint

# Said by the libraries at import or on every run, and never about what the user did.
HARMLESS_WARNINGS = (
    r'.*torch\.meshgrid.*',
    r'.*MultiScaleDeformableAttention.*',
    r'.*FileClient.*',
    r'.*torch\.cuda\.amp.*',
    r'.*pkg_resources.*',
    r'.*(MKL|OMP)_NUM_THREADS.*',
    r'.*broadcast_buffers.*',
    r'.*TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD.*',
    r'.*Failed to load image Python extension.*',
    r'.*before `optimizer\.step\(\)`.*',  # while gradients are accumulated, schedulers go on by iteration
)


def silence_harmless_warnings() -> None:
    """Drop the warnings listed in ``HARMLESS_WARNINGS``."""
    for message in HARMLESS_WARNINGS:
        warnings.filterwarnings('ignore', message=message)


def stand_in_for_drn() -> None:
    """Stand in for ``localizers/drn``, which mmaction2's 1.2.0 wheel lacks (open-mmlab/mmaction2#2714)."""
    spec = importlib.util.find_spec('mmaction')
    if spec is None or not spec.submodule_search_locations:
        return
    folder = Path(spec.submodule_search_locations[0], 'models', 'localizers', 'drn')
    if folder.exists() or 'mmaction.models.localizers.drn' in sys.modules:
        return
    package = types.ModuleType('mmaction.models.localizers.drn')
    package.__path__ = []
    module = types.ModuleType('mmaction.models.localizers.drn.drn')
    module.DRN = type('DRN', (), {'__doc__': 'Absent from the mmaction2 wheel.'})
    package.drn = module
    sys.modules[package.__name__] = package
    sys.modules[module.__name__] = module


def leave_multimodal_models_out() -> None:
    """Leave out models that the hosts import beside transformers (pycocotools); version 5 breaks them."""
    import importlib_metadata
    from mmaction.utils import dependency

    dependency.WITH_MULTIMODAL = False
    found = importlib_metadata.distribution
    importlib_metadata.distribution = lambda name: found('none' if name == 'pycocotools' else name)
    try:
        import mmpretrain.utils.dependency  # noqa: F401 - it decides while it is imported, and all its models with it
    finally:
        importlib_metadata.distribution = found


def checkpoint_without_reentry() -> None:
    """Checkpoint without re-entry: in re-entrant mode no delta behind a frozen stem gets a gradient."""
    from mmaction.models.backbones import swin
    from mmengine.runner import activation_checkpointing
    from mmpretrain.models.backbones import swin_transformer

    without = partial(checkpoint, use_reentrant=False)
    swin.checkpoint = swin_transformer.cp = types.SimpleNamespace(checkpoint=without)
    activation_checkpointing.wrap_forward = partial(partial, without)  # mmengine's own also drops keyword arguments


def format_configs_once() -> None:
    """Format a config once: mmengine does so each time it is logged or saved, up to a second each."""
    from mmengine.config import config

    format_code, formatted = config.FormatCode, {}

    def once(text: str, **options: Any) -> tuple[str, bool]:
        key = text, repr(options)
        if key not in formatted:
            formatted.clear()  # one config is enough to remember
            formatted[key] = format_code(text, **options)
        return formatted[key]

    config.FormatCode = once


def drop_paths_are_floats() -> None:
    """Make mmcv's drop rates floats: mmpretrain's ViT passes a numpy number, which breaks full-graph capture."""
    from mmcv.cnn.bricks.drop import DropPath

    init = DropPath.__init__

    def with_float(self: DropPath, drop_prob: float = 0.1) -> None:
        init(self, float(drop_prob))

    DropPath.__init__ = with_float


def apply() -> None:
    """Make the host libraries importable and usable; called once by ``import vpetl_mm``."""
    silence_harmless_warnings()
    stand_in_for_drn()
    leave_multimodal_models_out()
    checkpoint_without_reentry()
    format_configs_once()
    drop_paths_are_floats()
