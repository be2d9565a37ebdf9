# VTAB-1k: 800 training and 200 validation images a task, and its whole test set, at 224 x 224. Both sides are
# resized, and nothing is augmented. vtab<task>.py adds the task.
data_help = (
    'tools/prepare_data.py vtab1k --src DIR makes it from a tree DIR/<task>/{train800,val200,test}.txt with images/'
)
# 0.2: trained on train800 and validated on val200, to choose settings; 0: trained on both, for the final run
holdout = dict(fraction=0.0, seed=0)
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),  # finds more damage than OpenCV
    dict(type='NumpyToPIL', to_rgb=True),  # mmcv loads BGR
    dict(type='torchvision/Resize', size=[224, 224], interpolation='bicubic'),
    dict(type='PackInputs'),
]
test_pipeline = train_pipeline

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,  # workers that outlive an epoch would make a resumed run differ
    worker_init_fn=dict(type='seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='VTAB1k', split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='VTAB1k', split='train', held_out=True, pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='VTAB1k', split='test', pipeline=test_pipeline),
)
val_evaluator = dict(type='PETLAccuracy')
test_evaluator = dict(type='PETLAccuracy')
