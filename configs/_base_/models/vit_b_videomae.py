# VideoMAE ViT-B/16, pre-trained on Kinetics-400 without labels. Its file has no fc_norm: the leaves train it.
_base_ = 'vit_b_videomaek400.py'
model = dict(
    base=dict(
        file='data/weights/videomae_vit_b_k400_pretrain_1600e.pth',
        url='https://github.com/MCG-NJU/VideoMAE/blob/main/MODEL_ZOO.md (Kinetics-400, ViT-B, 1600 epochs)',
        convert='videomae',
    )
)
