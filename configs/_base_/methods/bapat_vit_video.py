# BAPAT on a video ViT: as for images, without dropout
_base_ = 'bapat_vit_image.py'
petl = dict(deltas=dict(adapter=dict(dropout=0.0)))
