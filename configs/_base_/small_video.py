# A small Video Swin, all of it trained from scratch on clips of one's own: no pre-trained weights, minutes on a CPU.
# It tries lists and labels out; what adapting a pre-trained model gives it does not.
_base_ = ['models/swin_demo.py', 'methods/full.py', 'datasets/ssv2_f8.py', 'schedules/demo.py', 'runtime.py']
_open, _sample, _decode = _base_.train_pipeline[:3]
train_pipeline = [
    _open,
    dict(_sample, frame_interval=4),
    _decode,
    dict(type='MultiScaleCrop', input_size=64, scales=(1, 0.875, 0.75, 0.66), num_fixed_crops=13),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
test_pipeline = [
    _open,
    dict(_sample, frame_interval=4, test_mode=True),
    _decode,
    dict(type='Resize', scale=(-1, 64)),
    dict(type='CenterCrop', crop_size=64),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
train_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=2, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=8, num_workers=2, dataset=dict(pipeline=test_pipeline))
petl = _base_.petl
model = dict(petl=petl, base=None)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
