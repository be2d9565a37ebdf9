# Visual prompt tuning, deep, for VTAB-1k: 50 tokens a block
_base_ = 'vpt.py'
petl = dict(deltas=dict(prompt=dict(num_tokens=50)))
