_base_ = 'vits14_bapat_cifar100shot10_b32_dinov2.py'
train_dataloader = dict(dataset=dict(per_class=5))
val_dataloader = dict(dataset=dict(per_class=5))
