_base_ = ['_base_/few_shot.py', '_base_/methods/adaptformer_vit_image.py']
petl = _base_.petl
petl.deltas.adapter.d_bottle = 64
model = dict(petl=petl)
