_base_ = 'vtab1k.py'
num_classes = 8
_data = dict(data_root='data/vtab1k/clevr_count', num_classes=8)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
