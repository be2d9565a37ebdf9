"""Register all modules of this package in mmengine's root registries, where every host library's scope finds it."""

from __future__ import annotations

from mmengine.logging import MMLogger
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    FUNCTIONS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    RUNNERS,
    TRANSFORMS,
    VISBACKENDS,
)
from mmpretrain.registry import TRANSFORMS as IMAGE_TRANSFORMS

from .datasets.cifar100 import PETLCIFAR100
from .datasets.decoded_clips import DecodedVideoDataset
from .datasets.food101 import PETLFood101
from .datasets.image_arrays import ImageArrays
from .datasets.image_list import PETLImageList
from .datasets.image_reader import LoadImageFromFile
from .datasets.petl_video_dataset import PETLVideoDataset
from .datasets.svhn import SVHN
from .datasets.video_transforms import DecodeVideo, OpenVideo
from .datasets.vtab1k import VTAB1k
from .engine.accuracy import PETLAccuracy
from .engine.console import quiet
from .engine.hooks.adapter_hook import AdapterHook
from .engine.hooks.ema_hook import EMAHook
from .engine.hooks.epoch_seed_hook import EpochSeedHook, seed_worker
from .engine.hooks.finite_loss_hook import FiniteLossHook
from .engine.hooks.frozen_backbone_hook import FrozenBackboneHook
from .engine.hooks.same_statistics_hook import SameStatisticsHook
from .engine.hooks.unreadable_video_hook import UnreadableVideoHook
from .engine.optim import AutocastOptimWrapper, PETLOptimWrapperConstructor, WholeStepsBatchSampler
from .engine.runner import PETLRunner
from .engine.wandb_backend import WandbVisBackend
from .models.hf_backbone import HFBackbone
from .models.image_classifier import PETLImageClassifier
from .models.recognizer import PETLRecognizer3D
from .models.timm_backbone import TimmBackbone
from .models.token_attention import PETLMultiheadAttention, PETLVideoMAEAttention
from .models.token_head import PETLImageHead, PETLTokenHead
from .models.video_head import PETLVideoHead
from .models.videomae_block import PETLVideoMAEBlock
from .models.window_attention import FastWindowAttention3D, FastWindowMSA
from .petl import DELTAS

REGISTERED = {
    MODELS: (
        *DELTAS,
        *(PETLRecognizer3D, PETLImageClassifier),
        *(PETLVideoHead, PETLTokenHead, PETLImageHead),
        *(FastWindowAttention3D, FastWindowMSA, PETLMultiheadAttention, PETLVideoMAEAttention),
        *(PETLVideoMAEBlock, TimmBackbone, HFBackbone),
    ),
    HOOKS: (
        *(AdapterHook, EpochSeedHook, FiniteLossHook, FrozenBackboneHook),
        *(SameStatisticsHook, UnreadableVideoHook),
    ),
    OPTIM_WRAPPERS: (AutocastOptimWrapper,),
    OPTIM_WRAPPER_CONSTRUCTORS: (PETLOptimWrapperConstructor,),
    DATASETS: (
        PETLVideoDataset,
        DecodedVideoDataset,
        PETLCIFAR100,
        PETLFood101,
        SVHN,
        ImageArrays,
        PETLImageList,
        VTAB1k,
    ),
    TRANSFORMS: (OpenVideo, DecodeVideo),
    DATA_SAMPLERS: (WholeStepsBatchSampler,),
    METRICS: (PETLAccuracy,),
    FUNCTIONS: (seed_worker,),
    RUNNERS: (PETLRunner,),
}
# they replace the libraries' own, which would copy the frozen backbone, copy every .py file, and read images of
# 16 bits as all white
REPLACED = {HOOKS: EMAHook, VISBACKENDS: WandbVisBackend, IMAGE_TRANSFORMS: LoadImageFromFile}


def register() -> None:
    """Register every module; called once by ``import vpetl_mm``."""
    for registry, modules in REGISTERED.items():
        for module in modules:
            registry.register_module(module=module)
    for registry, module in REPLACED.items():
        registry.register_module(module=module, force=True)
    try:
        from .fast import speed_up
    except ImportError as error:  # the folder can be left out
        if error.name != f'{__package__}.fast':
            raise
    else:
        FUNCTIONS.register_module(module=speed_up)


register()
quiet(MMLogger.get_current_instance())  # silences initialisation dumps before a run has a logger of its own
