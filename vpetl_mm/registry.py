"""Registers everything of ours in mmengine's root registries, so that every host library's scope finds it."""

from __future__ import annotations

from mmengine.registry import (
    DATASETS,
    FUNCTIONS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    RUNNERS,
)

from .datasets.petl_video_dataset import PETLVideoDataset
from .engine.accuracy import PETLAccuracy
from .engine.console import quiet_before_a_run
from .engine.hooks import (
    AdapterHook,
    EpochSeedHook,
    FiniteLossHook,
    FrozenBackboneHook,
    UnreadableVideoHook,
    seed_worker,
)
from .engine.optim import AutocastOptimWrapper, PETLOptimWrapperConstructor
from .engine.runner import PETLRunner
from .models.recognizer import PETLRecognizer3D
from .models.video_head import PETLVideoHead
from .models.window_attention import FastWindowAttention3D
from .petl import DELTAS

REGISTERED = {
    MODELS: (*DELTAS, PETLRecognizer3D, PETLVideoHead, FastWindowAttention3D),
    HOOKS: (AdapterHook, EpochSeedHook, FiniteLossHook, FrozenBackboneHook, UnreadableVideoHook),
    OPTIM_WRAPPERS: (AutocastOptimWrapper,),
    OPTIM_WRAPPER_CONSTRUCTORS: (PETLOptimWrapperConstructor,),
    DATASETS: (PETLVideoDataset,),
    METRICS: (PETLAccuracy,),
    FUNCTIONS: (seed_worker,),
    RUNNERS: (PETLRunner,),
}


def register() -> None:
    """Register every module; called once by ``import vpetl_mm``."""
    for registry, modules in REGISTERED.items():
        for module in modules:
            registry.register_module(module=module)


register()
quiet_before_a_run()
