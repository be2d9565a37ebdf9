_base_ = 'vtab1k.py'
num_classes = 397
_data = dict(data_root='data/vtab1k/sun397', num_classes=397)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
