_base_ = ['_base_/few_shot.py', '_base_/methods/adaptformer_vit_image.py']
petl = _base_.petl
petl.deltas.adapter.d_bottle = 64
model = dict(petl=petl)
optim_wrapper = dict(optimizer=dict(lr=0.001))
trials = 4  # learning rates, on held-out training images (docs/few_shot.md)
