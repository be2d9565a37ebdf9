_base_ = [
    '../_base_/models/vit_b_vtab.py',
    '../_base_/methods/dtl.py',
    '../_base_/datasets/vtab1k.py',
    '../_base_/schedules/vtab_dtl.py',
    '../_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.dtl.rank = 2
model = dict(petl=petl, head=dict(num_classes=_base_.num_classes))
train_dataloader = dict(batch_size=32)
