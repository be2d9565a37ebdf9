_base_ = ['_base_/few_shot.py', '_base_/methods/convpass.py']
petl = _base_.petl
petl.deltas.convpass.d_bottle = 8
petl.deltas.convpass.drop_path = 0.0  # as the backbone
model = dict(petl=petl)
