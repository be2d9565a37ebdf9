# Pre-training on the source, from nothing
_base_ = [
    '_base_/models/swin_demo.py',
    '_base_/methods/full.py',
    '_base_/datasets/demo_source.py',
    '_base_/schedules/demo.py',
    '_base_/runtime.py',
]
petl = _base_.petl
model = dict(petl=petl, base=None, cls_head=dict(num_classes=_base_.train_dataloader.dataset.num_classes))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=3, T_max=2)
train_cfg = dict(max_epochs=3)
