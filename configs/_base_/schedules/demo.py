# The demo's recipe: one epoch of warm-up per iteration, cosine to 0. Each method's learning rate was chosen on the
# validation clips.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='PETLOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=1, end=10, T_max=9, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=10)
test_cfg = dict(type='TestLoop')
