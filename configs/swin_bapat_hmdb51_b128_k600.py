_base_ = [
    '_base_/models/swin_b_k600.py',
    '_base_/methods/bapat.py',
    '_base_/datasets/hmdb51_f8.py',
    '_base_/schedules/video_70e.py',
    '_base_/runtime.py',
]
petl = _base_.petl
petl.deltas.patt.d_bottle = 128
petl.train = []  # the classification layer stays random and frozen, as in the paper
model = dict(petl=petl, cls_head=dict(num_classes=_base_.num_classes))
