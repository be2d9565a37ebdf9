# ViT-B/16, supervised on ImageNet-21k ("miil": no bias in qkv, inputs scaled to [0, 1])
default_scope = 'mmpretrain'
model = dict(
    type='PETLImageClassifier',
    base=dict(
        file='data/weights/vit_base_patch16_224_in21k_miil-887286df.pth',
        url='https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-tresnet/'
        'vit_base_patch16_224_in21k_miil-887286df.pth',
        convert='timm_vit',
    ),
    backbone=dict(type='VisionTransformer', arch='base', img_size=224, patch_size=16, qkv_bias=False),
    head=dict(type='PETLImageHead', in_channels=768),
    data_preprocessor=dict(type='ClsDataPreprocessor', mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)
