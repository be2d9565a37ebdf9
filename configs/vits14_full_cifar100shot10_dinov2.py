_base_ = ['_base_/few_shot.py', '_base_/methods/full.py']
petl = _base_.petl
model = dict(petl=petl)
optim_wrapper = dict(optimizer=dict(lr=3e-5))
