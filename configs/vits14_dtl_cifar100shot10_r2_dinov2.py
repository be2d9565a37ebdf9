_base_ = ['_base_/few_shot.py', '_base_/methods/dtl.py']
petl = _base_.petl
petl.deltas.dtl.rank = 2
model = dict(petl=petl)
