# Control: the same deltas on a backbone that was never trained
_base_ = 'demo_bapat.py'
model = dict(base=None)
