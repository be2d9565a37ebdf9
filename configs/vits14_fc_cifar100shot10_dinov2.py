_base_ = ['_base_/few_shot.py', '_base_/methods/fc.py']
petl = _base_.petl
model = dict(petl=petl)
cache_features = dict(views=2)  # with and without a flip
