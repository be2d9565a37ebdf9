# ST-Adapter in front of attention and MLP, a quarter as wide as the model
_base_ = [
    '../_base_/models/vits14_frames.py',
    '../_base_/methods/st_adapter.py',
    '../_base_/datasets/order_motion.py',
    '../_base_/schedules/order.py',
    '../_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.before_attn.update(d_bottle=96, kernel=(3, 3, 3))
petl.deltas.before_mlp.update(d_bottle=96, kernel=(3, 3, 3))
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
