_base_ = ['_base_/few_shot.py', '_base_/methods/fc.py']
petl = _base_.petl
model = dict(petl=petl)
cache_features = dict(views=2)  # with and without a flip
optim_wrapper = dict(optimizer=dict(lr=0.01))
trials = 4  # learning rates, on held-out training images (docs/few_shot.md)
