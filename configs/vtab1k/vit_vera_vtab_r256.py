_base_ = [
    '../_base_/models/vit_b_vtab.py',
    '../_base_/methods/vera.py',
    '../_base_/datasets/vtab1k.py',
    '../_base_/schedules/vtab_vera.py',
    '../_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.vera.rank = 256
model = dict(petl=petl, head=dict(num_classes=_base_.num_classes))
