# A short budget that a CPU can pay, the same for each method: one epoch of 32 images a step, a fifth of it warm-up,
# bfloat16, SGD. The learning rates in vits14_*.py are the best of a grid on 1,000 of the 5,000 training images
# (docs/real_transfer.md).
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    constructor='PETLOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0.2, end=1, T_max=0.8, convert_to_iter_based=True
    ),
]
recipe_gpus = 1
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
