_base_ = [
    '_base_/models/swin_demo.py',
    '_base_/methods/bapat.py',
    '_base_/datasets/demo_target.py',
    '_base_/schedules/demo.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.patt.d_bottle = 16
petl.deltas.adapter.d_bottle = 16
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
optim_wrapper = dict(optimizer=dict(lr=1e-2))
