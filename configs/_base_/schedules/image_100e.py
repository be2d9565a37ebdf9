# V-PETL's recipe for images (AdaptFormer's): SGD, 20 epochs of warm-up per iteration, cosine to 0.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    constructor='PETLOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0),
)
# lr * total batch / 256, accumulation included: 0.1 at 64 images x 4 GPUs
auto_scale_lr = dict(enable=True, base_batch_size=256)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=0.0, T_max=80, by_epoch=True, begin=20, end=100, convert_to_iter_based=True
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
