# The ViT-S/14 of vits14_dinov2.py as a model of timm: the same weights, in timm's own file, and the inputs that timm
# knows. img_size: its position embedding, of 37 x 37 patches, is resized to 8 x 8.
default_scope = 'mmpretrain'
model = dict(
    type='PETLImageClassifier',
    base=dict(
        file='data/weights/vit_small_patch14_dinov2.safetensors',
        url='https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors',
    ),
    backbone=dict(type='TimmBackbone', model='vit_small_patch14_dinov2.lvd142m', img_size=112),
    head=dict(type='PETLImageHead', in_channels=384),
)
