_base_ = 'vits14_bapat_cifar100shot10_b32_dinov2.py'
model = dict(petl=dict(deltas=dict(patt=dict(scale=1.0))))
