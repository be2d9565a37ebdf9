_base_ = 'vtab1k.py'
num_classes = 37
_data = dict(data_root='data/vtab1k/oxford_iiit_pet', num_classes=37)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
