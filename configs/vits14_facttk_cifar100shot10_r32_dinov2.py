_base_ = ['_base_/few_shot.py', '_base_/methods/facttk.py']
petl = _base_.petl
petl.deltas.fact.rank = 32
model = dict(petl=petl)
