_base_ = 'vtab1k.py'
num_classes = 2
_data = dict(data_root='data/vtab1k/patch_camelyon', num_classes=2)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
