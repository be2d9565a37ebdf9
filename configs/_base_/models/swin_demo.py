# A small Video Swin for 8 frames of 32 x 32, pre-trained by the demo itself on its source domain
default_scope = 'mmaction'
model = dict(
    type='PETLRecognizer3D',
    base=dict(file='data/demo/source_backbone.pth'),
    backbone=dict(
        type='SwinTransformer3D',
        arch=dict(embed_dims=32, depths=[2, 4], num_heads=[2, 4]),
        patch_size=(2, 4, 4),
        window_size=(8, 8, 8),
        drop_path_rate=0.1,
        out_indices=(1,),
    ),
    cls_head=dict(type='PETLVideoHead', in_channels=64),
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape='NCTHW',
    ),
)
