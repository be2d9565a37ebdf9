# ViT-B/16 for VTAB-1k, pre-trained on ImageNet-1k without labels as a masked autoencoder
_base_ = 'vit_b_mae.py'
model = dict(backbone=dict(drop_path_rate=0.1), head=dict(bn=False))
