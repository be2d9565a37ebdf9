# VideoMAE ViT-B/16, pre-trained and then fine-tuned on Kinetics-400, as converted by mmaction2
default_scope = 'mmaction'
model = dict(
    type='PETLRecognizer3D',
    base=dict(
        file='data/weights/vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400_20221013-860a3cd3.pth',
        url='https://download.openmmlab.com/mmaction/v1.0/recognition/videomae/'
        'vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400_20221013-860a3cd3.pth',
    ),
    backbone=dict(
        type='VisionTransformer',
        img_size=224,
        patch_size=16,
        embed_dims=768,
        depth=12,
        num_heads=12,
        num_frames=8,
        tubelet_size=2,
        norm_cfg=dict(type='LN', eps=1e-6),
    ),
    cls_head=dict(type='PETLTokenHead', in_channels=768),
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape='NCTHW',
    ),
)
