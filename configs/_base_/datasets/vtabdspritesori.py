_base_ = 'vtab1k.py'
num_classes = 16
_data = dict(data_root='data/vtab1k/dsprites_ori', num_classes=16)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
