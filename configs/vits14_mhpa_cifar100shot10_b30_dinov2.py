_base_ = ['_base_/few_shot.py', '_base_/methods/mhpa.py']
petl = _base_.petl
petl.deltas.mhpa.num_tokens = 30
model = dict(petl=petl)
