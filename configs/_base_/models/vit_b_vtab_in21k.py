# ViT-B/16 for VTAB-1k, supervised on ImageNet-21k: the original file, with a bias in qkv, not "miil". The head is a
# plain linear layer, and inputs are normalised as ImageNet's, as in SPT's published code.
_base_ = 'vit_b_vtab_mae.py'
model = dict(
    base=dict(
        file='data/weights/vit_b_16_imagenet21k.npz',
        url='https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz',
        convert='google_vit',
    ),
)
