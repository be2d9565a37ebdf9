# Video Swin-B, pre-trained on ImageNet-22K and fine-tuned on Kinetics-400 by its authors
default_scope = 'mmaction'
model = dict(
    type='PETLRecognizer3D',
    base=dict(
        file='data/weights/swin_base_patch244_window877_kinetics400_22k.pth',
        url='https://github.com/SwinTransformer/storage/releases/download/v1.0.4/'
        'swin_base_patch244_window877_kinetics400_22k.pth',
        convert='video_swin',
    ),
    backbone=dict(
        type='SwinTransformer3D',
        arch='base',
        patch_size=(2, 4, 4),
        window_size=(8, 7, 7),
        drop_path_rate=0.4,
        patch_norm=True,
    ),
    cls_head=dict(type='PETLVideoHead', in_channels=1024),
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape='NCTHW',
    ),
)
