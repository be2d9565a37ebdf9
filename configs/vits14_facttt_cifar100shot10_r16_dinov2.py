_base_ = ['_base_/few_shot.py', '_base_/methods/facttt.py']
petl = _base_.petl
petl.deltas.fact.rank = 16
model = dict(petl=petl)
