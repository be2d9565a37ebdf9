# Video Swin-B, fine-tuned on Kinetics-600 by its authors
_base_ = 'swin_b_k400.py'
model = dict(
    base=dict(
        file='data/weights/swin_base_patch244_window877_kinetics600_22k.pth',
        url='https://github.com/SwinTransformer/storage/releases/download/v1.0.4/'
        'swin_base_patch244_window877_kinetics600_22k.pth',
    )
)
