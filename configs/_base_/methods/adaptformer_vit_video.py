# AdaptFormer as published for video ViTs: as for images, without dropout
_base_ = 'adaptformer_vit_image.py'
petl = dict(deltas=dict(adapter=dict(dropout=0.0)))
