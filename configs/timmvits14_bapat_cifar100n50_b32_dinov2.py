# vits14_bapat_cifar100n50_b32_dinov2.py on timm's model
_base_ = [
    '_base_/models/timm_vits14_dinov2.py',
    '_base_/methods/bapat_vit_image.py',
    '_base_/datasets/cifar100n50.py',
    '_base_/schedules/transfer.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.patt.d_bottle = 32
model = dict(petl=petl, head=dict(num_classes=_base_.num_classes))
optim_wrapper = dict(optimizer=dict(lr=0.03))
