"""Hooks of mmengine's Runner."""

from .adapter_hook import AdapterHook
from .ema_hook import EMAHook
from .epoch_seed_hook import EpochSeedHook, seed_worker
from .feature_cache_hook import FeatureCacheHook
from .finite_loss_hook import FiniteLossHook
from .frozen_backbone_hook import FrozenBackboneHook
from .same_statistics_hook import SameStatisticsHook
from .unreadable_video_hook import UnreadableVideoHook

__all__ = [
    'AdapterHook',
    'EMAHook',
    'EpochSeedHook',
    'FeatureCacheHook',
    'FiniteLossHook',
    'FrozenBackboneHook',
    'SameStatisticsHook',
    'UnreadableVideoHook',
    'seed_worker',
]
