_base_ = [
    '_base_/models/swin_demo.py',
    '_base_/methods/sptadapter.py',
    '_base_/datasets/demo_target.py',
    '_base_/schedules/demo.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.spt.update(file='work_dirs/demo_sptadapter/spt.safetensors', budget=10_240)  # what LoRA tunes
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
optim_wrapper = dict(optimizer=dict(lr=5.348e-3))
