_base_ = 'vtab1k.py'
num_classes = 45
_data = dict(data_root='data/vtab1k/resisc45', num_classes=45)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
