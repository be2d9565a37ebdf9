_base_ = [
    '_base_/models/vits14_dinov2.py',
    '_base_/methods/adaptformer_vit_image.py',
    '_base_/datasets/cifar100n50.py',
    '_base_/schedules/transfer.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.adapter.d_bottle = 64
model = dict(petl=petl, head=dict(num_classes=_base_.num_classes))
optim_wrapper = dict(optimizer=dict(lr=0.03))
