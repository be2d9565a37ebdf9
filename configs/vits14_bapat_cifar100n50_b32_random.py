# The control: a random backbone, nothing pre-trained
_base_ = 'vits14_bapat_cifar100n50_b32_dinov2.py'
model = dict(base=None)
