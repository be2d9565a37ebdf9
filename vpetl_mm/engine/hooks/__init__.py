"""Hooks of mmengine's Runner."""

from .adapter_hook import AdapterHook
from .epoch_seed_hook import EpochSeedHook, seed_worker
from .feature_cache_hook import FeatureCacheHook
from .finite_loss_hook import FiniteLossHook
from .frozen_backbone_hook import FrozenBackboneHook
from .unreadable_video_hook import UnreadableVideoHook

__all__ = [
    'AdapterHook',
    'EpochSeedHook',
    'FeatureCacheHook',
    'FiniteLossHook',
    'FrozenBackboneHook',
    'UnreadableVideoHook',
    'seed_worker',
]
