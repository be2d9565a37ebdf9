_base_ = ['_base_/few_shot.py', '_base_/methods/bapat_vit_image.py']
petl = _base_.petl
petl.deltas.patt.d_bottle = 32
model = dict(petl=petl)
