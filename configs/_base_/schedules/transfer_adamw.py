# transfer.py with AdamW, as all the further methods are published, at one rate for all of them: the best of three for
# SPT-LoRA, and close to LoRA's best (docs/real_transfer.md). Nothing was tried with any of them.
_base_ = 'transfer.py'
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=3e-3, weight_decay=0.0))
