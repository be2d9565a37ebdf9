# The ViT-S/14 of vits14_dinov2.py as timm builds it, on 8 frames of 70 x 70, folded into the batch; the head reads
# the mean of their class tokens. timm says how inputs are normalised.
default_scope = 'mmaction'
model = dict(
    type='PETLRecognizer3D',
    base=dict(
        file='data/weights/vit_small_patch14_dinov2.timm.fp16.safetensors',
        url='https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth',
    ),
    backbone=dict(type='TimmBackbone', model='vit_small_patch14_dinov2', img_size=70),
    cls_head=dict(type='PETLVideoHead', in_channels=384),
)
