_base_ = [
    '_base_/models/swin_b_k400.py',
    '_base_/methods/norm2.py',
    '_base_/datasets/ssv2_f8.py',
    '_base_/schedules/video_70e.py',
    '_base_/runtime.py',
]
petl = _base_.petl
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
