_base_ = ['_base_/few_shot.py', '_base_/methods/bitfit_vit.py']
petl = _base_.petl
model = dict(petl=petl)
