_base_ = 'swin_bapat_hmdb51_b128.py'
model = dict(petl=dict(deltas=dict(patt=dict(scale=0.2))))
