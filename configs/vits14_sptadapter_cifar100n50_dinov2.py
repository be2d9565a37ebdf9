_base_ = [
    '_base_/models/vits14_dinov2.py',
    '_base_/methods/sptadapter.py',
    '_base_/datasets/cifar100n50.py',
    '_base_/schedules/transfer.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.spt.update(
    file='work_dirs/vits14_sptadapter_cifar100n50_dinov2/spt.safetensors', budget=294_912
)  # what LoRA tunes
model = dict(petl=petl, head=dict(num_classes=_base_.num_classes))
# AdamW as in SPT's recipe; the rate is the better of two (docs/real_transfer.md)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=3e-3, weight_decay=0.0))
