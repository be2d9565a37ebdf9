_base_ = ['_base_/few_shot.py', '_base_/methods/ssf.py']
petl = _base_.petl
model = dict(petl=petl)
