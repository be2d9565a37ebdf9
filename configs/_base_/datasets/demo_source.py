# The demo's source domain: a digit goes one way and on, or to its left or right; other digits
_base_ = 'demo_target.py'
_source = dict(num_classes=12, metainfo=dict(classes='data/demo/source_classes.txt'))
train_dataloader = dict(batch_size=32, dataset=dict(ann_file='data/demo/source_train.txt', **_source))
val_dataloader = dict(dataset=dict(ann_file='data/demo/source_train.txt', **_source))
test_dataloader = dict(dataset=dict(ann_file='data/demo/source_test.txt', **_source))
