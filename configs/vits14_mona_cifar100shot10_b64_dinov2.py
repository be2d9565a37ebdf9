_base_ = ['_base_/few_shot.py', '_base_/methods/mona.py']
petl = _base_.petl
petl.deltas.mona.d_bottle = 64
model = dict(petl=petl)
