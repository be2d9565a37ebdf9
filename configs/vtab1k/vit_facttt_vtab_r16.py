_base_ = [
    '../_base_/models/vit_b_vtab.py',
    '../_base_/methods/facttt.py',
    '../_base_/datasets/vtab1k.py',
    '../_base_/schedules/vtab_100e_floor.py',
    '../_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.fact.rank = 16
model = dict(petl=petl, head=dict(num_classes=_base_.num_classes))
