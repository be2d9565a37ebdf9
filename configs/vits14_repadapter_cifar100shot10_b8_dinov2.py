_base_ = ['_base_/few_shot.py', '_base_/methods/repadapter.py']
petl = _base_.petl
petl.deltas.repadapter.d_bottle = 8
model = dict(petl=petl)
