_base_ = ['_base_/few_shot.py', '_base_/methods/dora.py']
petl = _base_.petl
petl.deltas.dora.rank = 16
model = dict(petl=petl)
