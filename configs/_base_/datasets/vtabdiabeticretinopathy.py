_base_ = 'vtab1k.py'
num_classes = 5
_data = dict(data_root='data/vtab1k/diabetic_retinopathy', num_classes=5)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
