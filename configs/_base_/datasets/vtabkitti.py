_base_ = 'vtab1k.py'
num_classes = 4
_data = dict(data_root='data/vtab1k/kitti', num_classes=4)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
