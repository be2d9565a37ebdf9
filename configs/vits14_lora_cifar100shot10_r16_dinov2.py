_base_ = ['_base_/few_shot.py', '_base_/methods/lora.py']
petl = _base_.petl
petl.deltas.lora.rank = 16
model = dict(petl=petl)
