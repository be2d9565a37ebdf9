_base_ = [
    '_base_/models/timm_vit_b_dinov3.py',
    '_base_/methods/bapat_vit_image.py',
    '_base_/datasets/cifar100.py',
    '_base_/schedules/image_100e.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.patt.d_bottle = 64
model = dict(petl=petl, head=dict(num_classes=_base_.num_classes))
