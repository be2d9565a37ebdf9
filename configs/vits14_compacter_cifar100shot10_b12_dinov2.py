_base_ = ['_base_/few_shot.py', '_base_/methods/compacter.py']
petl = _base_.petl
petl.deltas.compacter.d_bottle = 12
model = dict(petl=petl)
