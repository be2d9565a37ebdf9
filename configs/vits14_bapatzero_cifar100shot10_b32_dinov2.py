# PATT's up-projection starts at zero, so that training starts from the plain backbone
_base_ = 'vits14_bapat_cifar100shot10_b32_dinov2.py'
model = dict(petl=dict(deltas=dict(patt=dict(init='zero'))))
