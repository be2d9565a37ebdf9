_base_ = 'vtab1k.py'
num_classes = 18
_data = dict(data_root='data/vtab1k/smallnorb_azi', num_classes=18)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
