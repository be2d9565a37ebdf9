# ViT-B/16, pre-trained on ImageNet-1k without labels as a masked autoencoder
_base_ = 'vit_b_in21k.py'
model = dict(
    base=dict(
        file='data/weights/mae_pretrain_vit_base.pth',
        url='https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth',
    ),
    backbone=dict(qkv_bias=True),
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
