# How a run starts, what it says and what it keeps. Every entry can be changed alone by a child.
custom_imports = dict(imports=['vpetl_mm'], allow_failed_imports=False)
randomness = dict(seed=0)
env_cfg = dict(
    cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl')
)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=10, ignore_last=False),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),  # epoch_*.pth, for --resume
    frozen_backbone=dict(type='FrozenBackboneHook'),
    epoch_seed=dict(type='EpochSeedHook'),
    finite_loss=dict(type='FiniteLossHook'),
    adapter=dict(type='AdapterHook'),  # adapter_*.pth and best_*.pth, for keeping
    same_statistics=dict(type='SameStatisticsHook'),
    unreadable_video=dict(type='UnreadableVideoHook'),
)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
log_level = 'INFO'
