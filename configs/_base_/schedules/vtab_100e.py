# SPT's recipe for VTAB-1k: AdamW, 10 epochs of warm-up per iteration, cosine to 0. A vector is not decayed.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    constructor='PETLOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=0.0, T_max=90, by_epoch=True, begin=10, end=100, convert_to_iter_based=True
    ),
]
recipe_gpus = 1
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
