# The demo's source domain: straight motions, other digits
_base_ = 'demo_target.py'
_classes = dict(classes='data/demo/source_classes.txt')
train_dataloader = dict(batch_size=32, dataset=dict(ann_file='data/demo/source_train.txt', metainfo=_classes))
val_dataloader = dict(dataset=dict(ann_file='data/demo/source_train.txt', metainfo=_classes))
test_dataloader = dict(dataset=dict(ann_file='data/demo/source_test.txt', metainfo=_classes))
