_base_ = [
    '_base_/models/timm_vits14_dinov2_video.py',
    '_base_/methods/bapat_vit_video.py',
    '_base_/datasets/hmdb51_f8.py',
    '_base_/schedules/video_70e.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.patt.d_bottle = 64
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
