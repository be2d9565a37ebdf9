# ViT-B/16 for VTAB-1k, as in SPT's published code: a plain linear head, and inputs normalised as ImageNet's. An
# experiment's name ends with the pre-training, a config that inherits has vtab_pretrain = 'mae': vpetl_mm/config.py
# then replaces {file}, {url} and {convert} here, and {pretrain} in configs/vtab1k/.
_base_ = 'vit_b_mae.py'
vtab_pretrains = dict(
    # supervised on ImageNet-21k: the original file, with a bias in qkv, not "miil"
    in21k=dict(
        file='data/weights/vit_b_16_imagenet21k.npz',
        url='https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz',
        convert='google_vit',
    ),
    # on ImageNet-1k without labels, as a masked autoencoder
    mae=dict(
        file='data/weights/mae_pretrain_vit_base.pth',
        url='https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth',
        convert='timm_vit',
    ),
    # on ImageNet-1k without labels, by MoCo v3
    mocov3=dict(
        file='data/weights/mocov3_vit_b_300ep.pth.tar',
        url='https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar',
        convert='mocov3',
    ),
)
model = dict(
    base=dict(file='{file}', url='{url}', convert='{convert}'),
    backbone=dict(drop_path_rate=0.1),
    head=dict(bn=False),
)
