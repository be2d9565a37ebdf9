# Something-Something v2: 8 frames at stride 2, 224 x 224. Its test labels are not public: the test list is
# the official validation list, and nothing is ever chosen on it.
num_classes = 174
data_help = 'tools/prepare_data.py ssv2 --src DIR makes it from the official download; see data/README.md'
holdout = dict(fraction=0.0, seed=0)  # share of the training list to validate on; 0: none, the last epoch is reported
dataset_type = 'PETLVideoDataset'
metainfo = dict(classes='data/ssv2/classes.txt')

train_pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleFrames', clip_len=8, frame_interval=2, num_clips=1),
    dict(type='DecodeVideo'),
    dict(type='MultiScaleCrop', input_size=224, scales=(1, 0.875, 0.75, 0.66), num_fixed_crops=13),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
val_pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleFrames', clip_len=8, frame_interval=2, num_clips=1, test_mode=True),
    dict(type='DecodeVideo'),
    dict(type='Resize', scale=(-1, 224)),
    dict(type='CenterCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
test_pipeline = [  # 4 clips in time x 3 crops in space, their logits averaged
    dict(type='OpenVideo'),
    dict(type='SampleFrames', clip_len=8, frame_interval=2, num_clips=4, test_mode=True),
    dict(type='DecodeVideo'),
    dict(type='Resize', scale=(-1, 224)),
    dict(type='ThreeCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=False,  # workers that outlive an epoch would make a resumed run differ
    drop_last=True,
    worker_init_fn=dict(type='seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        ann_file='data/ssv2/trainval.txt',
        data_prefix=dict(video='data/ssv2/videos'),
        num_classes=num_classes,
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        ann_file='data/ssv2/trainval.txt',
        data_prefix=dict(video='data/ssv2/videos'),
        num_classes=num_classes,
        metainfo=metainfo,
        held_out=True,
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=2,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        ann_file='data/ssv2/test.txt',
        data_prefix=dict(video='data/ssv2/videos'),
        num_classes=num_classes,
        metainfo=metainfo,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type='PETLAccuracy')
test_evaluator = dict(type='PETLAccuracy')
