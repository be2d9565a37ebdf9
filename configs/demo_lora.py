_base_ = [
    '_base_/models/swin_demo.py',
    '_base_/methods/lora.py',
    '_base_/datasets/demo_target.py',
    '_base_/schedules/demo.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.lora.rank = 8
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
optim_wrapper = dict(optimizer=dict(lr=5.348e-3))
