# AIM, without drop-path in this short run
_base_ = [
    '../_base_/models/vits14_frames.py',
    '../_base_/methods/aim.py',
    '../_base_/datasets/order_clutter.py',
    '../_base_/schedules/order.py',
    '../_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.time.update(d_bottle=96, drop_path=0.0)
petl.deltas.space.d_bottle = 96
petl.deltas.joint.update(d_bottle=96, drop_path=0.0)
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
