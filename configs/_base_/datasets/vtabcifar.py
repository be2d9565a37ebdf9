_base_ = 'vtab1k.py'
num_classes = 100
_data = dict(data_root='data/vtab1k/cifar', num_classes=100)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
