# The control: a random backbone, nothing pre-trained. LayerScale is at 1: at DINOv2's start, 1e-5, which pre-training
# raises, no block of a frozen backbone passes anything on.
_base_ = 'vits14_bapat_cifar100n50_b32_dinov2.py'
model = dict(base=None, backbone=dict(layer_scale_init_value=1.0))
