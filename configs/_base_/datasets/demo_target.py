# The demo's target domain: real handwritten digits whose motions turn, reverse or accelerate; 8 frames of 32 x 32
num_classes = 8
data_help = 'made by "make demo"'
holdout = dict(fraction=0.0, seed=0)  # as for every data set; the demo's own settings were chosen on target_val.txt
_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=8, frame_interval=1, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
_loader = dict(num_workers=1, persistent_workers=False, worker_init_fn=dict(type='seed_worker'))
_dataset = dict(
    type='PETLVideoDataset',
    data_prefix=dict(video='data/demo'),
    num_classes=num_classes,
    metainfo=dict(classes='data/demo/target_classes.txt'),
    pipeline=_pipeline,
)
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='data/demo/target_train.txt', **_dataset),
    **_loader,
)
_in_order = dict(batch_size=50, sampler=dict(type='DefaultSampler', shuffle=False), **_loader)
val_dataloader = dict(
    dataset=dict(ann_file='data/demo/target_train.txt', held_out=True, test_mode=True, **_dataset), **_in_order
)
test_dataloader = dict(dataset=dict(ann_file='data/demo/target_test.txt', test_mode=True, **_dataset), **_in_order)
val_evaluator = dict(type='PETLAccuracy')
test_evaluator = dict(type='PETLAccuracy')
