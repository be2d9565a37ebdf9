_base_ = [
    '_base_/models/vits14_dinov2.py',
    '_base_/methods/repadapter.py',
    '_base_/datasets/cifar100n50.py',
    '_base_/schedules/transfer_adamw.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.repadapter.d_bottle = 8
model = dict(petl=petl, head=dict(num_classes=_base_.num_classes))
