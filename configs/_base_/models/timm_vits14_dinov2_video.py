# The ViT-S/14 of timm_vits14_dinov2.py on clips: it sees each frame as an image, and the head pools over time
default_scope = 'mmaction'
model = dict(
    type='PETLRecognizer3D',
    base=dict(
        file='data/weights/vit_small_patch14_dinov2.safetensors',
        url='https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors',
    ),
    backbone=dict(type='TimmBackbone', model='vit_small_patch14_dinov2.lvd142m', img_size=224),
    cls_head=dict(type='PETLTokenHead', in_channels=384, temporal_pool='mean'),
)
