_base_ = 'vits14_full_cifar100shot10_dinov2.py'
train_dataloader = dict(dataset=dict(per_class=5))
val_dataloader = dict(dataset=dict(per_class=5))
