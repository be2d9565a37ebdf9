_base_ = 'vtab1k.py'
num_classes = 102
_data = dict(data_root='data/vtab1k/caltech101', num_classes=102)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
