# DINOv3's ViT-B/16, a model of timm: rotary positions, four register tokens, its patches' tokens averaged
default_scope = 'mmpretrain'
model = dict(
    type='PETLImageClassifier',
    base=dict(
        file='data/weights/vit_base_patch16_dinov3.safetensors',
        url='https://huggingface.co/timm/vit_base_patch16_dinov3.lvd1689m/resolve/main/model.safetensors',
    ),
    backbone=dict(type='TimmBackbone', model='vit_base_patch16_dinov3.lvd1689m', img_size=224),
    head=dict(type='PETLImageHead', in_channels=768),
)
