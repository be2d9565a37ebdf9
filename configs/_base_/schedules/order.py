# AdamW at one rate for all, one epoch of four to warm up, cosine to 0, in bfloat16
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    constructor='PETLOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=1, end=4, T_max=3, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
