_base_ = 'vtab1k.py'
num_classes = 6
_data = dict(data_root='data/vtab1k/dmlab', num_classes=6)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
