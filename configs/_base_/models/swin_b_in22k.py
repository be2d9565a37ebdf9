# 2D Swin-B, pre-trained on ImageNet-22K images alone and inflated to video
_base_ = 'swin_b_k400.py'
model = dict(
    base=dict(
        file='data/weights/swin_base_patch4_window7_224_22k.pth',
        url='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_base_patch4_window7_224_22k.pth',
        convert='swin2d',
    )
)
