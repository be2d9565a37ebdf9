_base_ = [
    '_base_/models/vit_b_videomae.py',
    '_base_/methods/vpt.py',
    '_base_/datasets/hmdb51_f8.py',
    '_base_/schedules/video_70e.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.train = ['head', 'fc_norm']
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
