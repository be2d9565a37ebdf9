_base_ = ['_base_/few_shot.py', '_base_/methods/mam.py']
petl = _base_.petl
petl.deltas.adapter.d_bottle = 192
model = dict(petl=petl)
