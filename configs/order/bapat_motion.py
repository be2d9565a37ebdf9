# The control: BAPAT, and the mean over frames, which does not see their order
_base_ = [
    '../_base_/models/vits14_frames.py',
    '../_base_/methods/bapat.py',
    '../_base_/datasets/order_motion.py',
    '../_base_/schedules/order.py',
    '../_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.patt.update(d_bottle=32, init='zero')
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
