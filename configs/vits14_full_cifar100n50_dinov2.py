_base_ = [
    '_base_/models/vits14_dinov2.py',
    '_base_/methods/full.py',
    '_base_/datasets/cifar100n50.py',
    '_base_/schedules/transfer.py',
    '_base_/runtime.py',
]
petl = _base_.petl
model = dict(petl=petl, head=dict(num_classes=_base_.num_classes))
# under SGD with one learning rate the head learns too slowly or the backbone is lost (docs/real_transfer.md)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=3e-5, weight_decay=0.0))
