_base_ = ['_base_/few_shot.py', '_base_/methods/kadaptation.py']
petl = _base_.petl
model = dict(petl=petl)
