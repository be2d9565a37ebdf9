_base_ = ['_base_/few_shot.py', '_base_/methods/vera.py']
petl = _base_.petl
petl.deltas.vera.rank = 256
model = dict(petl=petl)
