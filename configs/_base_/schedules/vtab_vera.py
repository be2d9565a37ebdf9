# SPT's recipe for VTAB-1k with VeRA's rates: ten times LoRA's, and the head's own; the vectors are not decayed
_base_ = 'vtab_100e.py'
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(deltas=dict(lr_mult=10.0, decay_mult=0.0))))
