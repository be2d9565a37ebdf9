# ViT-B/16 for VTAB-1k, pre-trained on ImageNet-1k without labels by MoCo v3
_base_ = 'vit_b_vtab_mae.py'
model = dict(
    base=dict(
        file='data/weights/mocov3_vit_b_300ep.pth.tar',
        url='https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar',
        convert='mocov3',
    ),
)
