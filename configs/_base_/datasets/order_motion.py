# The demo's target clips, 32 x 32, for a model of 70 x 70: classes that the order of frames alone tells apart
_base_ = 'demo_target.py'
data_help = 'made by "python docs/order_of_frames.py"'
_open, _sample, _decode, _format, _pack = _base_.train_dataloader.dataset.pipeline
pipeline = [_open, _sample, _decode, dict(type='Resize', scale=(70, 70), keep_ratio=False), _format, _pack]
_data = dict(data_prefix=dict(video='data/order/motion'), pipeline=pipeline)
_data.update(metainfo=dict(classes='data/order/motion/target_classes.txt'))
train_dataloader = dict(dataset=dict(ann_file='data/order/motion/target_train.txt', **_data))
val_dataloader = dict(dataset=dict(ann_file='data/order/motion/target_train.txt', **_data))
test_dataloader = dict(dataset=dict(ann_file='data/order/motion/target_test.txt', **_data))
