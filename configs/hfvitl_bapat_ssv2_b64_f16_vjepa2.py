_base_ = [
    '_base_/models/hf_vit_l_vjepa2.py',
    '_base_/methods/bapat_vit_video.py',
    '_base_/datasets/ssv2_f16.py',
    '_base_/schedules/video_70e.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.patt.d_bottle = 64
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
