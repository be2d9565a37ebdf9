# The demo's recipe: one epoch of warm-up per iteration, cosine to 0. The learning rates here and in demo_*.py are
# those of one search of equal budget on 400 validation clips (docs/performance.md). Methods of further papers keep
# the rate here; no other was tried for them.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='PETLOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=7e-3, weight_decay=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=1, end=7, T_max=6, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=7)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
