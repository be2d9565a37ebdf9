_base_ = ['_base_/few_shot.py', '_base_/methods/adapterplus.py']
petl = _base_.petl
petl.deltas.adapterplus.d_bottle = 8
petl.deltas.adapterplus.drop_path = 0.0  # as the backbone
model = dict(petl=petl)
